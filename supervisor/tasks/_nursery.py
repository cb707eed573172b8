"""Nurseries for tasks of our own: what their blocks raise comes out as it is, not in a group."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

import trio

from ._forks import open_scopes


@contextlib.asynccontextmanager
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for tasks of our own, cancelled when the block ends.

    Our tasks raise nothing but bugs, so what the block raises is all there is to tell; a bug
    comes out beside it in a group, as from any nursery. A KeyboardInterrupt that comes while the
    tasks end is told alone.
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
        told = _told(group, raised)
        try:
            if told is None:
                raise
            raise_as_it_is(told)
        finally:
            del told  # else it would hold the frame that holds it
    finally:
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
        try:
            outer.start_soon(_hold_open, scope, opened, ready)
            with trio.CancelScope(shield=True):  # it takes one step, also if we are cancelled
                await ready.wait()  # a KeyboardInterrupt ends it all the same
            yield opened[0]
        finally:
            open_scopes().discard(scope)
            scope.cancel()


@trio.lowlevel.enable_ki_protection
async def _hold_open(
    scope: trio.CancelScope, opened: list[trio.Nursery], ready: trio.Event
) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            opened.append(nursery)
            ready.set()
            await trio.sleep_forever()


def raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise an error that was in a group, with the context that it had."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error


def _told(
    group: BaseExceptionGroup[BaseException], raised: BaseException | None
) -> BaseException | None:
    """Return what the group of a nursery has to tell, if that is one thing.

    Cancel scopes split groups, and what is left of a nested one is a copy of it: so it is the
    leaves that are compared.
    """
    known = set() if raised is None else set(map(id, _leaves(raised)))
    others = [leaf for leaf in _leaves(group) if id(leaf) not in known]
    others = [leaf for leaf in others if not isinstance(leaf, trio.Cancelled)]
    interrupt = next((leaf for leaf in others if isinstance(leaf, KeyboardInterrupt)), None)
    if interrupt is not None and len(others) == 1:
        return interrupt
    return None if others else raised


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
