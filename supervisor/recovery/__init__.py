"""What earlier supervisors left: adopted, or discarded."""

from ._adopt import (
    DELETED_ELSEWHERE,
    Broken,
    Recovery,
    in_flight,
)
from ._adopt_all import (
    Adopted,
    adopt_all,
)
from ._discard import (
    discard,
)

__all__ = [
    "DELETED_ELSEWHERE",
    "Adopted",
    "Broken",
    "Recovery",
    "adopt_all",
    "discard",
    "in_flight",
]
