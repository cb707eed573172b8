"""One shimmed process: launched, watched by a task of its own, and ended."""

from ._collect import (
    MAX_OUTPUT_BYTES,
    Completed,
    Holder,
    deliver,
    end_process,
    feed,
    run_options,
    stay,
    stubborn,
    warn,
    winding_up,
)
from ._evidence import (
    Evidence,
    Finding,
    Found,
    classify,
    find_process,
    gather,
    kill_found,
    load_process,
    lost,
)
from ._options import (
    CollectOptions,
    InitOptions,
    ProgramOptions,
)
from ._pid1 import (
    is_copy,
)
from ._process import (
    Process,
    ask,
    process_of,
)
from ._shared import (
    Shared,
    shielded,
)
from ._task import (
    GATE_SECONDS,
    Listener,
    ProcessTask,
    check_signal,
)

__all__ = [
    "GATE_SECONDS",
    "MAX_OUTPUT_BYTES",
    "CollectOptions",
    "Completed",
    "Evidence",
    "Finding",
    "Found",
    "Holder",
    "InitOptions",
    "Listener",
    "Process",
    "ProcessTask",
    "ProgramOptions",
    "Shared",
    "ask",
    "check_signal",
    "classify",
    "deliver",
    "end_process",
    "feed",
    "find_process",
    "gather",
    "is_copy",
    "kill_found",
    "load_process",
    "lost",
    "process_of",
    "run_options",
    "shielded",
    "stay",
    "stubborn",
    "warn",
    "winding_up",
]
