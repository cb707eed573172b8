"""Sets of what lives as long as somebody else keeps it."""

from __future__ import annotations

import weakref
from typing import TypeVar

from trio.lowlevel import enable_ki_protection

T = TypeVar("T")


class WeakSet(weakref.WeakSet[T]):
    """A `weakref.WeakSet` in whose removals no KeyboardInterrupt is raised.

    The interpreter calls them wherever the last reference goes, prints what they raise, and goes
    on: a Ctrl-C at that moment would be lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self._remove = enable_ki_protection(self._remove)  # type: ignore[has-type]
