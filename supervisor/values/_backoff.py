"""Growing waits between retries."""

from __future__ import annotations

import math

import attrs

from ._errors import InvalidValue


@attrs.frozen(kw_only=True)
class Backoff:
    """Waits that grow with each failure in a row, up to the longest.

    Attributes:
        first: seconds to wait after the first failure; above 0.
        factor: how many times longer each further wait is; 1 or more.
        longest: the longest wait, in seconds.
    """

    first: float = 0.1
    factor: float = 2.0
    longest: float = 5.0

    def __attrs_post_init__(self) -> None:
        for name, least in (("first", 0.0), ("factor", 1.0), ("longest", self.first)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                raise InvalidValue(f"{name} must be {least:g} or more, not {value!r}")
        if self.first <= 0:
            raise InvalidValue("first must be above 0 seconds")

    def seconds(self, failures: int) -> float:
        """Return how many seconds to wait after this many failures in a row; 0 after none."""
        if failures < 1:
            return 0.0
        try:
            return min(self.longest, self.first * self.factor ** (failures - 1))
        except OverflowError:
            return self.longest
