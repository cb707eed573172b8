"""Cgroups, version 1 and 2: who is in them, what was killed for memory, and their removal.

::

    _mounts                  which hierarchies are mounted, and where: pure
    _steps                   work in small steps, in a thread if there is much of it
    _tree                    the groups of one cgroup, by descriptors
    _hierarchies             one cgroup in all hierarchies
    _ooms                    which out-of-memory kills a process has outlived
    _apart                   one for shims and keepers, beside those of the containers
"""

from ._apart import group_apart
from ._hierarchies import Hierarchies
from ._ooms import OomWatch
from ._steps import Steps, T, finish

__all__ = ["Hierarchies", "OomWatch", "Steps", "T", "finish", "group_apart"]
