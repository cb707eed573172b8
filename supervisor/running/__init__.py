"""A program that is run to its end: fed, its output collected, and ended if need be."""

from ._collect import (
    feed,
    stay,
)
from ._completed import (
    Completed,
    Holder,
)
from ._end import (
    deliver,
    end_process,
    stubborn,
    warn,
    winding_up,
)
from ._options import (
    CollectOptions,
    InitOptions,
    ProgramOptions,
)
from ._wanted import (
    MAX_OUTPUT_BYTES,
    run_options,
)

__all__ = [
    "MAX_OUTPUT_BYTES",
    "CollectOptions",
    "Completed",
    "Holder",
    "InitOptions",
    "ProgramOptions",
    "deliver",
    "end_process",
    "feed",
    "run_options",
    "stay",
    "stubborn",
    "warn",
    "winding_up",
]
