"""Cgroups, version 1 and 2: their processes, out-of-memory kills, killing and removal."""

from ._apart import (
    group_apart,
)
from ._hierarchies import (
    Hierarchies,
)
from ._ooms import (
    OomWatch,
)
from ._steps import (
    Steps,
    T,
    finish,
)

__all__ = [
    "Hierarchies",
    "OomWatch",
    "Steps",
    "T",
    "finish",
    "group_apart",
]
