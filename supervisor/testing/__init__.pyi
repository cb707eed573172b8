# The public names, and where each of them is: `__init__.py` loads it when it is first used.
from ._conformance import Ability, Conformance, ConformanceError, check_runtime
from ._harm import Unread, fill_memory, frozen, kill_shim, unread
from ._host_runtime import Fault, FaultyRuntime, HostRuntime
from ._leaks import Leak, LeakCheck, LeakError, leak_check
from ._machine import SupervisorMachine, run_machine
from ._operations import Operation
from ._profile import profile
from ._shared_pool import SharedPool
from ._supervised import InfrastructureFailed, supervised
from ._taken import TakenContainer
from ._thread import SupervisorThread

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
