"""The native programs: the shim and its parts, the keeper, the tether, the hook, init and gate.

They are C, and are built into this directory. Python finds them by `find_binary`.
"""

from ._programs import (
    check_program,
    find_binary,
)

__all__ = [
    "check_program",
    "find_binary",
]
