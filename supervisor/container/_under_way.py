"""Running operations on a container or a root, which end when the supervisor closes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import attrs
import trio


@attrs.frozen(eq=False)
class _Operation:
    """One operation: the scope for the cancellation, and the event at the end."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen(eq=False)
class Operations:
    """The running operations of one container or supervisor."""

    _under_way: set[_Operation] = attrs.field(init=False, factory=set)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[trio.CancelScope]:
        """Run an operation as the block; the supervisor's close cancels and undoes the operation.

        The block is then left without an exception, and the scope's ``cancelled_caught`` is True.
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
    """Cancel operations, and wait until they are undone."""
    under_way = [one for group in operations for one in group._under_way]
    for one in under_way:
        one.scope.cancel()
    for one in under_way:
        await one.over.wait()
