"""Crash points: the points at which a test may kill a supervisor.

Every step that changes the disk, a process or a cgroup lies between two points.
"""

from __future__ import annotations

import enum

from ._observation import Observation


class Point(Observation, enum.Enum):
    """A point that an operation has reached."""

    TEMPORARY_MADE = "create, exec: a directory with a temporary name"
    LOCKED = "create, exec: the supervisor holds the lock in this directory"
    FILLED = "create, exec: the record and all other files are in this directory"
    DIRECTORY_MADE = "create, exec: the directory has the final name"
    FIFOS_MADE = "create, exec: the fifos exit and control"
    LAUNCHED = "create, exec: the shim runs"
    REPORTED = "create, exec: the shim has reported the process"
    WATCHED = "create, exec: a pidfd holds the process"
    STARTING = "start: the runtime is about to be called"
    START_RETURNED = "start: the runtime has started the container"
    STARTED = "start: the mark of the start is on disk"
    EXIT_SEEN = "end: the shim has recorded the exit status"
    SETTLED = "end: the result is on disk"
    STOP_INTENDED = "stop: the intent is on disk"
    KILLED = "stop, delete: everything in the cgroup was sent SIGKILL"
    DELETE_INTENDED = "delete: the intent is on disk"
    PROCESSES_ENDED = "delete: all processes have ended"
    FORGOTTEN = "delete: the runtime has forgotten the container"
    CGROUP_REMOVED = "delete: the cgroup is gone"
    SHIMS_GONE = "delete: the shims are gone"
    REMOVED = "delete: the container directory is gone"
    ADOPTING = "open: the supervisor holds the lock of a container on disk"
    GATHERED = "open: the evidence of the init is gathered"
    ADOPTED = "open: the init is watched"
    EXECS_ADOPTED = "open: the execs are watched"
