"""What is under way with a container, or a root, and ends when its supervisor closes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import attrs
import trio


@attrs.frozen(eq=False)
class _Operation:
    """One operation: what ends it, and when it is over."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen(eq=False)
class Operations:
    """The operations that are under way."""

    _under_way: set[_Operation] = attrs.field(init=False, factory=set)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[trio.CancelScope]:
        """Do something that ends, undone as if it were cancelled, when the supervisor closes.

        The block is left without an exception then; its scope says that it was cancelled.
        """
        operation = _Operation()
        self._under_way.add(operation)
        try:
            with operation.scope:
                yield operation.scope
        finally:
            self._under_way.discard(operation)
            operation.over.set()


async def end_under_way(operations: Iterable[Operations]) -> None:
    """Cancel operations, and wait until they have undone what they had begun."""
    under_way = [one for group in operations for one in group._under_way]
    for one in under_way:
        one.scope.cancel()
    for one in under_way:
        await one.over.wait()
