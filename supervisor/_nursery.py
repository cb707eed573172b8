"""Nurseries for tasks of our own: what their blocks raise comes out as it is, not in a group."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from ._forks import open_scopes


@contextlib.asynccontextmanager
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for tasks of our own, cancelled when the block ends.

    Our tasks raise nothing but bugs, so what the block raises is all there is to tell; a bug
    comes out beside it in a group, as from any nursery.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                raised = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if raised is None or not all(_is(error, raised) for error in group.exceptions):
            raise
        context = raised.__context__
        try:
            raise raised
        finally:
            raised.__context__ = context
            del raised


@contextlib.asynccontextmanager
async def lasting_nursery() -> AsyncIterator[trio.Nursery]:
    """Open such a nursery whose tasks go on when the block is cancelled, until it has ended.

    A clean-up at the block's end, shielded, waits for what they find out. In a forked child they
    end at once.
    """
    opened: list[trio.Nursery] = []
    ready = trio.Event()
    scope = trio.CancelScope(shield=True)
    open_scopes().add(scope)
    async with background_nursery() as outer:
        outer.start_soon(_hold_open, scope, opened, ready)
        with trio.CancelScope(shield=True):  # it takes one step, also if we are cancelled
            await ready.wait()
        try:
            yield opened[0]
        finally:
            open_scopes().discard(scope)
            scope.cancel()


async def _hold_open(
    scope: trio.CancelScope, opened: list[trio.Nursery], ready: trio.Event
) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            opened.append(nursery)
            ready.set()
            await trio.sleep_forever()


def _is(error: BaseException, raised: BaseException) -> bool:
    return error is raised or isinstance(error, trio.Cancelled)
