"""Observers: functions that are called with each observation, when it is made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ._observations import Observation

Observer = Callable[[Observation], None]


class Observers:
    """The observers of a supervisor, or of one of its containers.

    What happens to a container is seen by the observers of the container first, in the order in
    which these were added, then by those of the supervisor. An observer is called in Trio's thread,
    in the middle of the operation, and must neither wait nor fail: an exception ends the operation.
    """

    def __init__(self, above: Observers | None = None) -> None:
        self._above = above
        self._observers: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """Notify ``observer`` from now on."""
        self._observers.append(observer)

    @contextlib.contextmanager
    def observing(self, observer: Observer) -> Iterator[None]:
        """Notify ``observer`` during the block."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def notify(self, observation: Observation) -> None:
        """Call all observers."""
        for observer in tuple(self._observers):
            observer(observation)
        if self._above is not None:
            self._above.notify(observation)
