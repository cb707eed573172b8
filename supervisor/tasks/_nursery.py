"""Nurseries for our own tasks: an exception of the block is raised as it is, not in a group."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

import trio

from ._forks import open_scopes


@contextlib.asynccontextmanager
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for our own tasks; they are cancelled when the block ends.

    Our tasks raise nothing but bugs, so the block's exception is all that matters, and is raised as
    it is. A bug is raised beside it in a group, as from any nursery. A KeyboardInterrupt that comes
    while the tasks end is raised alone.
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
            del told  # else error and frame would hold each other
    finally:
        del raised


@contextlib.asynccontextmanager
async def lasting_nursery() -> AsyncIterator[trio.Nursery]:
    """Open such a nursery whose tasks go on after a cancellation, until the block has ended.

    A shielded clean-up at the block's end waits for results of these tasks. In a forked child the
    tasks end at once.
    """
    opened: list[trio.Nursery] = []
    ready = trio.Event()
    scope = trio.CancelScope(shield=True)
    open_scopes().add(scope)
    async with background_nursery() as outer:
        try:
            outer.start_soon(_hold_open, scope, opened, ready)
            with trio.CancelScope(shield=True):  # one step, also if we are cancelled
                await ready.wait()  # a KeyboardInterrupt ends this wait all the same
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
    """Raise an error from a group, and keep the error's context."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error


def _told(
    group: BaseExceptionGroup[BaseException], raised: BaseException | None
) -> BaseException | None:
    """Return the one exception that a nursery's group stands for; None if there are more.

    Cancel scopes split groups, and leave copies of nested ones: so compare the leaves.
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
