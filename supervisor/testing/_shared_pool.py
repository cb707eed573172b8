"""A pool in a thread of its own, shared by the examples of sync and async tests.

Hypothesis calls a test once per example, and every call of an async test is a new Trio run. A pool
inside that run would be filled and emptied for each example.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import trio

from .._supervisor import Supervisor
from ..bundle import Bundle
from ..container import Container
from ..pool import ContainerPool, PoolRunOptions, TakeOptions
from ..running import Completed
from ..runtime import Runtime
from ..stdio import PIPE
from ._taken import RUN_SECONDS, TakenContainer
from ._thread import SupervisorThread


class SharedPool:
    """A `ContainerPool` that lives in another thread during a ``with`` block.

    ::

        with SharedPool(bundle, size=4) as pool:
            pool.run_sync(["true"])     # where there is no Trio: in a sync test
            await pool.run(["true"])    # in a Trio task, of any Trio run

    The pool has an ephemeral supervisor: nothing outlives the block, or the program.

    Args:
        bundle: a `Bundle`, or a bundle's path.
        size: how many containers are kept ready.
        runtime: as for `open_supervisor`.
        options: further arguments, as for `ContainerPool`.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        size: int = 4,
        runtime: str | os.PathLike[str] | Runtime | None = None,
        **options: Any,
    ) -> None:
        self._make = partial(ContainerPool, bundle, size=size, **options)
        self._pool: ContainerPool | None = None
        self._thread = SupervisorThread(inside=self._opened, runtime=runtime)

    @property
    def root(self) -> str:
        """The root of the pool's supervisor, while the pool is open."""
        return self._thread.supervisor.root

    def __enter__(self) -> Self:
        """Open the pool, and wait until the containers are ready.

        Raises: what `open_supervisor` and `ContainerPool.wait_full` raise.
        """
        self._thread.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool, which deletes all of the pool's containers.

        Raises:
            DeadlineExpired: the thread didn't end in time.
        """
        self._thread.__exit__(kind, error, traceback)

    def run_sync(
        self,
        args: Sequence[str] | None = None,
        **options: Unpack[PoolRunOptions],
    ) -> Completed:
        """Run a program in a fresh container until the program ends. Not for Trio tasks.

        Arguments, result and errors are those of `ContainerPool.run`, except that ``deadline`` is
        60 seconds by default.

        Raises:
            InvalidValue: called in a Trio task; use `run` there.
            trio.ClosedResourceError: the pool isn't open.
        """
        return self._thread.run_sync(partial(self._run, args, **options))

    async def run(
        self,
        args: Sequence[str] | None = None,
        **options: Unpack[PoolRunOptions],
    ) -> Completed:
        """Run a program in a fresh container until the program ends. For Trio tasks.

        As `run_sync`.

        Cancellation: the container is killed, and deleted in the background.
        """
        return await self._thread.run(partial(self._run, args, **options))

    @contextlib.contextmanager
    def take(
        self,
        args: Sequence[str] | None = None,
        **options: Unpack[TakeOptions],
    ) -> Iterator[TakenContainer]:
        """Take a container with a running program: ``with pool.take(["server"]) as box:``.

        For sync tests of servers and other interactive programs. In a Trio task open a
        `ContainerPool` instead. At the end of the block the container is killed, if still running,
        and deleted in the background. Arguments and errors are those of `ContainerPool.take`; with
        ``stdin=PIPE`` there is ``box.stdin``.

        Raises:
            InvalidValue: called in a Trio task, which would block; or as `ContainerPool.take`.
            trio.ClosedResourceError: the pool isn't open, or was closed during the block.
        """
        opened = partial(self._taken, args, **options)
        with self._thread.hold_sync(opened) as box:
            yield TakenContainer(self._thread, box, fed=options.get("stdin") != PIPE)

    # ---- in the thread --------------------------------------------------------------------

    async def _run(
        self, args: Sequence[str] | None, **options: Unpack[PoolRunOptions]
    ) -> Completed:
        options.setdefault("deadline", RUN_SECONDS)
        return await self._require().run(args, **options)

    @contextlib.asynccontextmanager
    async def _taken(self, args: Sequence[str] | None, **options: Any) -> AsyncIterator[Container]:
        async with self._require().take(args, **options) as box:
            yield box

    def _require(self) -> ContainerPool:
        if self._pool is None:
            raise trio.ClosedResourceError("the pool was closed")
        return self._pool

    @contextlib.asynccontextmanager
    async def _opened(self, supervisor: Supervisor) -> AsyncIterator[None]:
        async with self._make(supervisor=supervisor) as self._pool:
            await self._pool.wait_full()
            yield
