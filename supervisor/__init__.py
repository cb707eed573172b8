"""Run and supervise OCI containers from Trio, without a daemon.

The floors of the house; a module imports only from those above its own line::

    _errors _status _lifecycle _deadlines   words: errors, ends, states, deadlines
    state/                                  what is on disk
    _pidfd                                  processes, held by descriptor
    oci/ shim/ stdio/ cgroups/              runtimes, shims, streams, cgroups
    _host _evidence _process                one shimmed process and its task
    _make _dispose _core                    a container's directory, its end, its inside
    _start _exec _end _checkpoint _create   the operations on one container
    _container                              a container, as users see it
    _adopt _leash _root _nursery            recovery, leash, root
    _supervisor                             the nursery and the registry
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
    "Cause",
    "open_supervisor",
]
