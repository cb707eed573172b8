"""The native programs: the shim and its parts, keeper, tether, hook, init and gate.

The programs are written in C and built into this directory. `find_binary` finds them.
"""

from ._programs import (
    check_program,
    find_binary,
)

__all__ = [
    "check_program",
    "find_binary",
]
