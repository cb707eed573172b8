from ._checks import (
    Ability,
)
from ._conformance import (
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
