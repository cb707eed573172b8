"""Run and supervise OCI containers from Trio, without a daemon.

The floors of the house. A module imports only from the lines above its own, and from those that
stand before it on its line::

    _errors _status _lifecycle _deadlines   words: errors, ends, states, deadlines
    state/                                  what is on disk
    _pidfd                                  processes, held by descriptor
    shim/ oci/ stdio/ cgroups/              shims, runtimes and bundles, streams, cgroups
    _host _evidence _hearing _verdict       what is known of a process, and how it ended
    _launch _process                        one shimmed process and its task
    _reserve _root _make _dispose _core     a container's directory, its end, its inside
    _start _exec _end _checkpoint _create   the operations on one container
    _container                              a container, as users see it
    _adopt _recovery _leash _nursery        recovery, leash, nursery
    _supervisor                             the supervisor and its registry
"""

from subprocess import DEVNULL, PIPE, STDOUT

from ._adopt import Broken
from ._checkpoint import CheckpointOptions
from ._container import Container
from ._deadlines import Deadlines
from ._end import Stopped
from ._errors import (
    BundleInvalid,
    CleanupIncomplete,
    ContainerExists,
    ContainerLocked,
    ContainerNotFound,
    CreateTimeout,
    DeadlineExpired,
    DiskFull,
    IllegalTransition,
    InfrastructureError,
    InvalidValue,
    OCIRuntimeError,
    ProcessEnded,
    RuntimeFailed,
    RuntimeNotFound,
    RuntimeTimeout,
    ShimError,
    ShimExited,
    ShimNotFound,
    StateCorrupt,
    SupervisorError,
    TooManyFiles,
    UsageError,
)
from ._lifecycle import State
from ._process import Process
from ._status import Cause, ExitStatus, Source
from ._supervisor import Supervisor, open_supervisor
from .oci import Bundle, Mount, Runtime

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Broken",
    "Bundle",
    "BundleInvalid",
    "Cause",
    "CheckpointOptions",
    "CleanupIncomplete",
    "Container",
    "ContainerExists",
    "ContainerLocked",
    "ContainerNotFound",
    "CreateTimeout",
    "DeadlineExpired",
    "Deadlines",
    "DiskFull",
    "ExitStatus",
    "IllegalTransition",
    "InfrastructureError",
    "InvalidValue",
    "Mount",
    "OCIRuntimeError",
    "Process",
    "ProcessEnded",
    "Runtime",
    "RuntimeFailed",
    "RuntimeNotFound",
    "RuntimeTimeout",
    "ShimError",
    "ShimExited",
    "ShimNotFound",
    "Source",
    "State",
    "StateCorrupt",
    "Stopped",
    "Supervisor",
    "SupervisorError",
    "TooManyFiles",
    "UsageError",
    "open_supervisor",
]
