"""The points between which a supervisor may be killed, for tests that kill it there.

Every step that changes the disk, a process or a cgroup lies between two of them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable


class Point(enum.Enum):
    """A point that an operation has reached."""

    TEMPORARY_MADE = "create, exec: a directory with a temporary name"
    LOCKED = "create, exec: the lock in it is ours"
    FILLED = "create, exec: its record and all else is in it"
    DIRECTORY_MADE = "create, exec: it has its name"
    PROCESS_MADE = "create: the process directory, with its record and streams"
    FIFOS_MADE = "create, exec: exit and control"
    LAUNCHED = "create, exec: the shim runs"
    REPORTED = "create, exec: the shim has reported the process"
    WATCHED = "create, exec: the process is held by its pidfd"
    STARTING = "start: the runtime is about to be called"
    START_RETURNED = "start: the runtime has started it"
    STARTED = "start: that is on record"
    EXIT_SEEN = "end: the shim has recorded it"
    SETTLED = "end: the result is on record"
    STOP_INTENDED = "stop: that it was begun is on record"
    KILLED = "stop, delete: everything in the cgroup was sent SIGKILL"
    DELETE_INTENDED = "delete: that it was begun is on record"
    PROCESSES_ENDED = "delete: all processes have ended"
    FORGOTTEN = "delete: the runtime has forgotten it"
    CGROUP_REMOVED = "delete: its cgroup is gone"
    SHIMS_GONE = "delete: its shims are gone"
    REMOVED = "delete: its directory is gone"
    ADOPTING = "open: the lock of a container that is there is ours"
    GATHERED = "open: what is left of its init is known"
    ADOPTED = "open: its init is watched"
    EXECS_ADOPTED = "open: its execs are too"


Reach = Callable[[Point], None]


def pass_by(point: Point) -> None:
    """Go on, as everywhere but in tests."""
