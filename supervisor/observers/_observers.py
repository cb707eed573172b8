"""Observers: functions that are called with each observation of a kind, when it is made."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ._observation import Observation

Observer = Callable[[Observation], None]

Kind = TypeVar("Kind", bound=Observation)


def weakly(method: Callable[[Kind], None]) -> Callable[[Kind], None]:
    """Return an observer that calls a method as long as its object lives, and keeps none alive."""
    reference = weakref.WeakMethod(method)

    def observe(observation: Kind) -> None:
        called = reference()
        if called is not None:
            called(observation)

    return observe


class Observers:
    """The observers of a supervisor, or of one of its containers.

    What happens to a container is seen by the observers of the container first, in the order in
    which these were added, then by those of the supervisor. An observer is called in Trio's thread,
    in the middle of the operation, and must neither wait nor fail: an exception ends the operation.
    """

    def __init__(self, above: Observers | None = None) -> None:
        self._above = above
        self._observers: list[tuple[type[Observation], Callable[[Any], None]]] = []

    def add(self, kind: type[Kind], observer: Callable[[Kind], None]) -> None:
        """Notify ``observer`` of the observations of a kind from now on."""
        self._observers.append((kind, observer))

    @contextlib.contextmanager
    def observing(self, kind: type[Kind], observer: Callable[[Kind], None]) -> Iterator[None]:
        """Notify ``observer`` of the observations of a kind during the block."""
        entry = (kind, observer)
        self._observers.append(entry)
        try:
            yield
        finally:
            self._observers.remove(entry)

    def notify(self, observation: Observation) -> None:
        """Call the observers of this kind of observation."""
        for kind, observer in tuple(self._observers):
            if isinstance(observation, kind):
                observer(observation)
        if self._above is not None:
            self._above.notify(observation)
