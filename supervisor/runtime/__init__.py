"""The OCI runtime: the choice, the command lines, the calls and the runtime's messages."""

from ._call import (
    failure,
    fresh_log,
    run,
)
from ._command import (
    Call,
    Head,
    checkpoint_options,
)
from ._container_runtime import (
    STARTED,
    ContainerRuntime,
)
from ._copies import (
    COPY,
    detach_copies,
)
from ._runtime import (
    CANDIDATES,
    Runtime,
)
from ._said import (
    criu_said,
    pieces_of,
    reason_in,
)
from ._sealed import (
    SealedPrograms,
)

__all__ = [
    "CANDIDATES",
    "COPY",
    "STARTED",
    "Call",
    "ContainerRuntime",
    "Head",
    "Runtime",
    "SealedPrograms",
    "checkpoint_options",
    "criu_said",
    "detach_copies",
    "failure",
    "fresh_log",
    "pieces_of",
    "reason_in",
    "run",
]
