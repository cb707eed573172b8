"""A weak set whose removals raise no KeyboardInterrupt."""

from __future__ import annotations

import weakref
from typing import TypeVar

from trio.lowlevel import enable_ki_protection

T = TypeVar("T")


class WeakSet(weakref.WeakSet[T]):
    """A `weakref.WeakSet` in whose removals no KeyboardInterrupt is raised.

    The interpreter runs a removal wherever the last reference goes. An exception there is printed
    and lost, so a Ctrl-C at that moment would be lost too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._remove = enable_ki_protection(self._remove)  # type: ignore[has-type]
