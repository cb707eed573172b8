"""The base of all that observers are notified of."""

from __future__ import annotations


class Observation:
    """What an observer is notified of."""

    __slots__ = ()
