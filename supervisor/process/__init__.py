"""One shimmed process: launched or adopted, watched by a task, and settled at the end."""

from ._begin import (
    adopt_process,
    look_on_process,
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
from ._gate import (
    GATE_SECONDS,
)
from ._process import (
    Process,
    ask,
    process_of,
    task_of,
)
from ._shared import (
    Shared,
)
from ._task import (
    ProcessTask,
    check_signal,
)
from ._watch import (
    run_process,
    watch_process,
)

__all__ = [
    "GATE_SECONDS",
    "Evidence",
    "Finding",
    "Found",
    "Process",
    "ProcessTask",
    "Shared",
    "adopt_process",
    "ask",
    "check_signal",
    "classify",
    "find_process",
    "gather",
    "kill_found",
    "load_process",
    "look_on_process",
    "lost",
    "process_of",
    "run_process",
    "task_of",
    "watch_process",
]
