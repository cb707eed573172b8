# The public names, and where each of them is: `__init__.py` loads it when it is first used.
from ._adopt import Broken
from ._backoff import Backoff
from ._checkpoint import CheckpointOptions
from ._collect import Completed, Holder
from ._container import Container
from ._deadlines import Deadlines
from ._end import Stopped
from ._errors import (
    AlreadyAttached,
    BundleInvalid,
    CleanupIncomplete,
    ContainerExists,
    ContainerLocked,
    ContainerNotFound,
    CreateTimeout,
    DeadlineExpired,
    DiskFull,
    GateFailed,
    IllegalTransition,
    InfrastructureError,
    InvalidValue,
    NotFifo,
    OCIRuntimeError,
    ProcessEnded,
    ProcessFailed,
    RuntimeFailed,
    RuntimeNotFound,
    RuntimeTimeout,
    ShimError,
    ShimExited,
    ShimNotFound,
    StateCorrupt,
    SupervisorClosed,
    SupervisorError,
    TooManyFiles,
    TooManyProcesses,
    UsageError,
)
from ._lifecycle import State
from ._logs import Logs
from ._pool import ContainerPool, PoolStatistics
from ._process import Process
from ._run import run_container
from ._status import Cause, ExitStatus, Source
from ._supervisor import Supervisor, open_supervisor
from ._witness import Change
from .oci import Bundle, Mount, Runtime
from .stdio import (
    DEVNULL,
    LOG,
    PIPE,
    STDOUT,
    Fifo,
    LogFile,
    LogRecord,
    TerminalSize,
    TerminalStream,
)

__all__ = [
    "DEVNULL",
    "LOG",
    "PIPE",
    "STDOUT",
    "AlreadyAttached",
    "Backoff",
    "Broken",
    "Bundle",
    "BundleInvalid",
    "Cause",
    "Change",
    "CheckpointOptions",
    "CleanupIncomplete",
    "Completed",
    "Container",
    "ContainerExists",
    "ContainerLocked",
    "ContainerNotFound",
    "ContainerPool",
    "CreateTimeout",
    "DeadlineExpired",
    "Deadlines",
    "DiskFull",
    "ExitStatus",
    "Fifo",
    "GateFailed",
    "Holder",
    "IllegalTransition",
    "InfrastructureError",
    "InvalidValue",
    "LogFile",
    "LogRecord",
    "Logs",
    "Mount",
    "NotFifo",
    "OCIRuntimeError",
    "PoolStatistics",
    "Process",
    "ProcessEnded",
    "ProcessFailed",
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
    "SupervisorClosed",
    "SupervisorError",
    "TerminalSize",
    "TerminalStream",
    "TooManyFiles",
    "TooManyProcesses",
    "UsageError",
    "open_supervisor",
    "run_container",
]
