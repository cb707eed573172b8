"""Observers: what happens to containers, and the functions that are notified of it at once."""

from ._observation import (
    Observation,
)
from ._observations import (
    HISTORY_LENGTH,
    Change,
    Changed,
    Ended,
    Gone,
    Made,
    Read,
)
from ._observers import (
    Observer,
    Observers,
    weakly,
)
from ._points import (
    Point,
)
from ._witness import (
    Witness,
    name_suffix,
    place,
    waiting,
    witness,
)

__all__ = [
    "HISTORY_LENGTH",
    "Change",
    "Changed",
    "Ended",
    "Gone",
    "Made",
    "Observation",
    "Observer",
    "Observers",
    "Point",
    "Read",
    "Witness",
    "name_suffix",
    "place",
    "waiting",
    "weakly",
    "witness",
]
