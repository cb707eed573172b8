"""An action at a point of an operation."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.observers import Observation, Point


class Once:
    """An observer that does something at one point, the first time."""

    def __init__(self, point: Point, act: Callable[[], object]) -> None:
        self._point = point
        self._act = act
        self.done = False

    def __call__(self, seen: Observation) -> None:
        if seen is self._point and not self.done:
            self.done = True
            self._act()
