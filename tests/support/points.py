"""An action at a point of an operation."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.values._points import Point


class Once:
    """A ``reach`` that does something at one point, the first time."""

    def __init__(self, point: Point, act: Callable[[], object]) -> None:
        self._point = point
        self._act = act
        self.done = False

    def __call__(self, point: Point) -> None:
        if point is self._point and not self.done:
            self.done = True
            self._act()
