"""The OCI runtime: which one, its command lines, its calls and what it says."""

from ._ask import (
    ask_bundle,
    ask_status,
    criu_said,
)
from ._call import (
    call,
    failure,
    fresh_log,
)
from ._command import (
    Caller,
    checkpoint_options,
    log_of,
    words_of,
)
from ._runtime import (
    CANDIDATES,
    Runtime,
)
from ._said import (
    pieces_of,
    reason_in,
)
from ._sealed import (
    SealedPrograms,
)

__all__ = [
    "CANDIDATES",
    "Caller",
    "Runtime",
    "SealedPrograms",
    "ask_bundle",
    "ask_status",
    "call",
    "checkpoint_options",
    "criu_said",
    "failure",
    "fresh_log",
    "log_of",
    "pieces_of",
    "reason_in",
    "words_of",
]
