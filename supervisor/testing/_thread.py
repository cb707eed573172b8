"""A supervisor in a thread of its own, for sync tests, and for those of several Trio runs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Generic, Self, TypedDict, TypeVar, Unpack

import trio

from .._open import open_supervisor
from .._supervisor import Supervisor
from ..process import shielded
from ..runtime import Runtime
from ..tasks import Opener, Witness, witness
from ..values import DeadlineExpired, Deadlines, InvalidValue
from ._arguments import check_callable
from ._example import Example

_OPEN_SECONDS: Final = 120.0
_CLOSE_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2

T = TypeVar("T")
Inside = Callable[[Supervisor], AbstractAsyncContextManager[object]]
"""What is opened beside a supervisor: a function that makes an async context manager for it."""


class Options(TypedDict, total=False):
    """The arguments of `open_supervisor`, by name."""

    root: str | os.PathLike[str] | None
    runtime: str | os.PathLike[str] | Runtime | None
    shim: str | os.PathLike[str] | None
    cgroup_parent: str
    deadlines: Deadlines | None
    leash: bool | None
    creates_at_once: int | None
    delete_unstarted: bool


@contextlib.asynccontextmanager
async def _nothing(supervisor: Supervisor) -> AsyncIterator[None]:
    yield


class SupervisorThread:
    """A supervisor that lives in a thread, for as long as a ``with`` block.

    ::

        with SupervisorThread() as thread:
            box = thread.run_sync(thread.supervisor.create, "web", bundle)
            thread.run_sync(box.start)

    For the rules of a state machine, which are sync functions that share their containers. What
    belongs to it, streams too, is used in its thread only: by functions that it runs.

    Attributes:
        supervisor: the `Supervisor`, when it is open.

    Args:
        inside: called in the thread with the supervisor when that is open, for an async context
            manager, which is entered before the ``with`` block and left after it, when all
            functions that were run have ended, and the supervisor is still open.
        options: as for `open_supervisor`: without a ``root`` it is ephemeral.

    Raises:
        InvalidValue: ``inside`` can't be called.
    """

    def __init__(self, *, inside: Inside = _nothing, **options: Unpack[Options]) -> None:
        self._inside = check_callable(inside, "inside")
        self._options = options
        self._opener = Opener()
        self._opened = threading.Event()
        self._failed: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()
        self._supervisor: Supervisor | None = None
        # A daemon, so that nobody waits for it at an exit that skips the end of the block; its
        # leash then breaks, and its containers go.
        self._thread = threading.Thread(target=self._main, name="supervisor", daemon=True)

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor.

        Raises:
            trio.ClosedResourceError: it isn't open.
        """
        if self._supervisor is None:
            raise trio.ClosedResourceError("it isn't open: use it in a with block")
        return self._supervisor

    def __enter__(self) -> Self:
        """Open it.

        Raises: what `open_supervisor` raises, and what ``inside`` does.
        """
        self._opener = Opener()
        self._thread.start()
        if not self._opened.wait(_OPEN_SECONDS):
            raise DeadlineExpired("the supervisor didn't open", seconds=_OPEN_SECONDS)
        if self._failed is not None:
            self._thread.join(_CLOSE_SECONDS)
            raise self._failed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it: all of its containers are deleted, if it is ephemeral.

        Raises:
            DeadlineExpired: it didn't come to its end.
        """
        if self._opener.elsewhere():  # a forked child hasn't got the thread
            return
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closing.set)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            raise DeadlineExpired("the supervisor didn't close", seconds=_CLOSE_SECONDS)
        if self._failed is not None:
            raise self._failed

    def run_sync(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run an async function in the thread, and wait for what it returns. Not in a Trio task.

        Raises:
            InvalidValue: this is a Trio task, which has `run`.
            trio.ClosedResourceError: it isn't open.
            What the function raises.
        """
        _refuse_in_trio("await run(...) here")
        done = threading.Event()
        job = self._send(_Job(done.set, function, args, witness.get()))
        self._wait(job, done)
        return job.result()

    @contextlib.contextmanager
    def hold_sync(
        self, make: Callable[..., AbstractAsyncContextManager[T]], *args: object
    ) -> Iterator[T]:
        """Hold an async context manager open in the thread: ``with thread.hold_sync(make) as it:``.

        It is made, entered and left in the thread, in one task. Not in a Trio task. What the block
        raises goes past it: to the context manager every block is one that has ended well.

        Args:
            make: called with ``args``, for an async context manager.

        Raises:
            InvalidValue: this is a Trio task, which it would block.
            trio.ClosedResourceError: the thread isn't open, or was closed meanwhile.
            What the context manager raises.
        """
        _refuse_in_trio("open it there, without this thread")
        turn, over, leave = threading.Event(), threading.Event(), trio.Event()
        entered: list[T] = []

        async def hold() -> None:
            async with make(*args) as value:
                entered.append(value)
                turn.set()
                await leave.wait()

        def ended() -> None:
            over.set()
            turn.set()

        job = self._send(_Job(ended, hold, (), witness.get()))
        self._wait(job, turn)
        if not entered:
            job.result()
        try:
            yield entered[0]
        finally:
            if not self._opener.elsewhere():  # a forked child hasn't got the thread
                self._soon(leave.set)
                self._wait(job, over)
        job.result()

    async def run(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run an async function in the thread, and wait for what it returns. In a Trio task.

        Raises: as `run_sync`.

        Cancellation: the function is cancelled.
        """
        done = trio.Event()
        home = trio.lowlevel.current_trio_token()
        job = self._send(_Job(lambda: home.run_sync_soon(done.set), function, args, witness.get()))
        try:
            await done.wait()
        except BaseException:
            self._cancel(job)
            with shielded(_CANCEL_SECONDS):
                await done.wait()
            raise
        return job.result()

    # ---- between the threads --------------------------------------------------------------

    def _send(self, job: _Job[T]) -> _Job[T]:
        self._opener.require()
        if self._token is None:
            raise trio.ClosedResourceError("it isn't open: use it in a with block")
        try:
            self._token.run_sync_soon(self._begin, job)
        except trio.RunFinishedError:
            raise trio.ClosedResourceError("it was closed") from self._failed
        return job

    def _begin(self, job: _Job[Any]) -> None:
        if self._nursery is None:
            job.over()
        else:
            self._nursery.start_soon(job.run)

    def _wait(self, job: _Job[Any], event: threading.Event) -> None:
        """Wait for as long as the job takes: its deadlines are its own. Ctrl-C cancels it."""
        try:
            # Python may begin to wait with a signal in hand, that came when it let go of its lock,
            # and sees it afterwards.
            while not event.wait(_LOOK_SECONDS):
                pass
        except BaseException:
            self._cancel(job)
            raise

    def _cancel(self, job: _Job[Any]) -> None:
        self._soon(job.scope.cancel)

    def _soon(self, function: Callable[[], object]) -> None:
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    # ---- in the thread --------------------------------------------------------------------

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # whoever opens or closes it raises it
            self._failed = error
        finally:
            self._opened.set()

    async def _serve(self) -> None:
        witness.set(Example(named=False))  # so that the root has the worker's name
        async with open_supervisor(**self._options) as supervisor:
            witness.set(None)
            self._supervisor = supervisor
            async with self._inside(supervisor), trio.open_nursery() as nursery:
                self._token = trio.lowlevel.current_trio_token()
                self._nursery = nursery
                self._opened.set()
                try:
                    await self._closing.wait()
                finally:
                    self._nursery = None
                    nursery.cancel_scope.cancel()


class _Job(Generic[T]):
    """An async function that somebody in another thread wants run."""

    def __init__(
        self,
        when_done: Callable[[], object],
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
        looking: Witness | None,
    ) -> None:
        self.scope = trio.CancelScope()
        self._when_done = when_done
        self._function = function
        self._args = args
        self._looking = looking
        self._returned: list[T] = []
        self._error: BaseException | None = None

    async def run(self) -> None:
        witness.set(self._looking)
        try:
            with self.scope:
                self._returned.append(await self._function(*self._args))
        except BaseException as error:
            if _is_cancellation(error):
                raise
            self._error = error
        finally:
            self.over()

    def over(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._when_done()

    def result(self) -> T:
        """Return what the function has returned, or raise what it raised.

        Raises:
            trio.ClosedResourceError: it did neither, since the thread was closed.
        """
        if self._error is not None:
            raise self._error
        if not self._returned:
            raise trio.ClosedResourceError("it was closed")
        return self._returned[0]


def _refuse_in_trio(instead: str) -> None:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:  # no run is in this thread; `in_trio_run` came with Trio 0.28
        return
    raise InvalidValue(f"it would block all tasks of this Trio run: {instead}")


def _is_cancellation(error: BaseException) -> bool:
    """Whether it is nothing else; several tasks that were cancelled come as a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
