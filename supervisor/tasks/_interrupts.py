"""Ctrl-C: a KeyboardInterrupt reaches the main task, once, and what the task awaits is undone.

Trio raises KeyboardInterrupt wherever the main thread is; or, if that code is protected, at the
main task's next checkpoint, even a shielded one. So all code that is called from outside is
protected, and so are all our tasks. And what has to be undone, or completed, runs in a task of its
own, which no KeyboardInterrupt reaches. For the main task, which waits for that task, a
KeyboardInterrupt cancels the wait, and is raised as soon as the clean-up is done.
"""

from __future__ import annotations

import functools
import inspect
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from types import FunctionType, TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from ._nursery import raise_as_it_is

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)


def protected(cls: C) -> C:
    """Decorate a class: no KeyboardInterrupt is raised in the middle of its methods."""
    for name, value in tuple(vars(cls).items()):
        guarded = _protected(value)
        if guarded is not value:
            setattr(cls, name, guarded)
    return cls


def _protected(value: object) -> object:
    if isinstance(value, property) and value.fget is not None:  # none of ours has a setter
        return property(enable_ki_protection(value.fget))
    if isinstance(value, classmethod | staticmethod):
        return type(value)(enable_ki_protection(value.__func__))
    if not isinstance(value, FunctionType):
        return value
    inner = inspect.unwrap(value)
    if inner is value:
        return enable_ki_protection(value)
    enable_ki_protection(inner)  # contextlib's wrapper is code that all share
    return value


def undoing(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate an async function: a KeyboardInterrupt becomes a cancellation of the function.

    Cancellation: as the function's.
    """

    @functools.wraps(function)
    @enable_ki_protection
    async def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _is_main_task():
            return await function(*args, **kwargs)
        return await _apart(functools.partial(function, *args, **kwargs), function.__qualname__)

    return whole


async def _apart(function: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
    done: list[T] = []

    @enable_ki_protection
    async def run() -> None:
        done.append(await function())

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, name=name)
    except BaseExceptionGroup as group:
        error = _first(group.exceptions)
        try:
            if not isinstance(error, KeyboardInterrupt) or not done:
                raise_as_it_is(error)
        finally:
            del error  # else the error and this frame would hold each other
        signal.raise_signal(signal.SIGINT)  # the function completed: interrupt right after it
    return done.pop()


def _first(errors: Sequence[BaseException]) -> BaseException:
    """Return the error that counts: a KeyboardInterrupt, then any other, then a cancellation."""
    kinds = (KeyboardInterrupt, trio.Cancelled)
    interrupts = [error for error in errors if isinstance(error, KeyboardInterrupt)]
    others = [error for error in errors if not isinstance(error, kinds)]
    return [*interrupts, *others, *errors][0]


def _is_main_task() -> bool:
    """Whether KeyboardInterrupt may reach this task: tasks in the main task's nurseries don't get
    any.
    """
    nursery = trio.lowlevel.current_task().parent_nursery
    return nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task()


def opening(
    function: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Decorate a function that returns a context manager: enter and exit are protected.

    `contextlib` isn't protected: a KeyboardInterrupt in its few steps would leave everything open.
    """

    @functools.wraps(function)
    def protect(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Protected(function(*args, **kwargs))

    return protect


class _Protected(AbstractAsyncContextManager[T], Generic[T]):
    def __init__(self, context: AbstractAsyncContextManager[T]) -> None:
        self._contexts = [context]

    @enable_ki_protection
    async def __aenter__(self) -> T:
        return await self._contexts[0].__aenter__()

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        context = self._contexts.pop()  # freed here, so finalizers are protected, too
        return await context.__aexit__(kind, error, traceback)
