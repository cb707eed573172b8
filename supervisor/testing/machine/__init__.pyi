from ._actor import (
    Actor,
)
from ._comparing import (
    is_stuck,
    lives,
    runs,
)
from ._machine import (
    BOXES,
    EXECS,
    SIGNALS,
    SupervisorMachine,
    actors,
    pick,
    picks,
    programs,
)
from ._model import (
    KILLED,
    Box,
    Model,
    Proc,
    Program,
    Shim,
    Truth,
    Word,
)
from ._operations import (
    VERBS,
    Operation,
)
from ._play import (
    open_setting,
    run_machine,
)
from ._stage import (
    PATIENCE_SECONDS,
    Refused,
    Setting,
    Stage,
    send,
)

__all__ = [
    "BOXES",
    "EXECS",
    "KILLED",
    "PATIENCE_SECONDS",
    "SIGNALS",
    "VERBS",
    "Actor",
    "Box",
    "Model",
    "Operation",
    "Proc",
    "Program",
    "Refused",
    "Setting",
    "Shim",
    "Stage",
    "SupervisorMachine",
    "Truth",
    "Word",
    "actors",
    "is_stuck",
    "lives",
    "open_setting",
    "pick",
    "picks",
    "programs",
    "run_machine",
    "runs",
    "send",
]
