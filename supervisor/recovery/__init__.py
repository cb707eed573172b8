"""Recovery: adopt or remove what earlier supervisors left on disk, or only look."""

from ._adopt import (
    DELETED_ELSEWHERE,
    Broken,
    Recovery,
)
from ._adopt_all import (
    Adopted,
    adopt_all,
)
from ._directories import (
    in_flight,
)
from ._discard import (
    discard,
)
from ._look import ContainerView, ProcessView, look

__all__ = [
    "DELETED_ELSEWHERE",
    "Adopted",
    "Broken",
    "ContainerView",
    "ProcessView",
    "Recovery",
    "adopt_all",
    "discard",
    "in_flight",
    "look",
]
