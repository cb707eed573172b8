"""Run a program until the end: feed input, collect output, and stop the program if needed."""

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
