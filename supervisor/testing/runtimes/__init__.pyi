from ._conformance import (
    Ability,
    Conformance,
    ConformanceError,
    check_runtime,
)
from ._host_runtime import (
    PROGRAM,
    Fault,
    FaultyRuntime,
    HostRuntime,
)

__all__ = [
    "PROGRAM",
    "Ability",
    "Conformance",
    "ConformanceError",
    "Fault",
    "FaultyRuntime",
    "HostRuntime",
    "check_runtime",
]
