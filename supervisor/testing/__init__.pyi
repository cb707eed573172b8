# The public names, and where each of them is: `__init__.py` loads it when it is first used.
from ._harm import (
    Unread,
    fill_memory,
    frozen,
    kill_shim,
    unread,
)
from ._leaks import (
    Leak,
    LeakCheck,
    LeakError,
    leak_check,
)
from ._profile import (
    profile,
)
from ._shared_pool import (
    SharedPool,
)
from ._supervised import (
    InfrastructureFailed,
    supervised,
)
from ._taken import (
    TakenContainer,
)
from ._thread import (
    SupervisorThread,
)
from .machine import (
    Operation,
    SupervisorMachine,
    run_machine,
)
from .runtimes import (
    Ability,
    Conformance,
    ConformanceError,
    Fault,
    FaultyRuntime,
    HostRuntime,
    check_runtime,
)

__all__ = [
    "Ability",
    "Conformance",
    "ConformanceError",
    "Fault",
    "FaultyRuntime",
    "HostRuntime",
    "InfrastructureFailed",
    "Leak",
    "LeakCheck",
    "LeakError",
    "Operation",
    "SharedPool",
    "SupervisorMachine",
    "SupervisorThread",
    "TakenContainer",
    "Unread",
    "check_runtime",
    "fill_memory",
    "frozen",
    "kill_shim",
    "leak_check",
    "profile",
    "run_machine",
    "supervised",
    "unread",
]
