"""A supervisor in a thread of its own, for sync tests and for tests with several Trio runs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack

import trio

from .._open import OpenOptions, open_supervisor
from .._supervisor import Supervisor
from ..observers import Witness, witness
from ..tasks import Opener, shielded
from ..values import DeadlineExpired, InvalidValue, require_known
from ._arguments import check_callable
from ._example import Example

_OPEN_SECONDS: Final = 120.0
_CLOSE_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.2

_NOT_OPEN: Final = "the supervisor's thread isn't open: use SupervisorThread in a with block"
_CLOSED: Final = "the supervisor's thread was closed"

T = TypeVar("T")
Inside = Callable[[Supervisor], AbstractAsyncContextManager[object]]
"""A function that takes the supervisor and makes an async context manager."""


@contextlib.asynccontextmanager
async def _nothing(supervisor: Supervisor) -> AsyncIterator[None]:
    yield


class SupervisorThread:
    """A supervisor that lives in another thread during a ``with`` block.

    ::

        with SupervisorThread() as thread:
            box = thread.run_sync(thread.supervisor.create, "web", bundle)
            thread.run_sync(box.start)

    For the rules of a state machine, which are sync functions that share their containers. Use the
    supervisor's objects, streams too, only in the thread: in functions that `run_sync` or `run`
    runs.

    Attributes:
        supervisor: the `Supervisor`, while open.

    Args:
        inside: makes an async context manager. The thread calls ``inside`` with the open supervisor
            and enters the context manager before the ``with`` block. After the block, when all
            functions in the thread have ended, the thread leaves the context manager; the
            supervisor is still open then.
        root, options: as for `open_supervisor`.

    Raises:
        InvalidValue: ``inside`` can't be called.
    """

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        inside: Inside = _nothing,
        **options: Unpack[OpenOptions],
    ) -> None:
        require_known(options, OpenOptions, "SupervisorThread")
        self._inside = check_callable(inside, "inside")
        self._root = root
        self._options = options
        self._opener = Opener()
        self._opened = threading.Event()
        self._failed: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()
        self._supervisor: Supervisor | None = None
        # A daemon thread: if the program exits without the end of the block, Python doesn't wait
        # for the thread. Then the leash breaks, and the containers are removed.
        self._thread = threading.Thread(target=self._main, name="supervisor", daemon=True)

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor.

        Raises:
            trio.ClosedResourceError: the thread isn't open.
        """
        if self._supervisor is None:
            raise trio.ClosedResourceError(_NOT_OPEN)
        return self._supervisor

    def __enter__(self) -> Self:
        """Start the thread, and open the supervisor there.

        Raises: what `open_supervisor` and ``inside`` raise.
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
        """Close the supervisor and end the thread. An ephemeral supervisor deletes its containers.

        Raises:
            DeadlineExpired: the supervisor didn't close in time.
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
        """Run an async function in the thread, and return the result. Not for Trio tasks.

        Raises:
            InvalidValue: called in a Trio task; use `run` there.
            trio.ClosedResourceError: the thread isn't open.
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

        One task in the thread makes, enters and leaves the context manager. The context manager
        doesn't see an exception of the block: for the context manager every block ends well. Not
        for Trio tasks.

        Args:
            make: called with ``args``; returns an async context manager.

        Raises:
            InvalidValue: called in a Trio task, which would block.
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
        """Run an async function in the thread, and return the result. For Trio tasks.

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
            raise trio.ClosedResourceError(_NOT_OPEN)
        try:
            self._token.run_sync_soon(self._begin, job)
        except trio.RunFinishedError:
            raise trio.ClosedResourceError(_CLOSED) from self._failed
        return job

    def _begin(self, job: _Job[Any]) -> None:
        if self._nursery is None:
            job.over()
        else:
            self._nursery.start_soon(job.run)

    def _wait(self, job: _Job[Any], event: threading.Event) -> None:
        """Wait until the job is done, without a deadline. Ctrl-C cancels the job."""
        try:
            # A signal may come when Python has checked for signals and not begun to wait. Python
            # handles that signal only after the wait, so each wait is short.
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
        except BaseException as error:  # `__enter__` or `__exit__` raises the error
            self._failed = error
        finally:
            self._opened.set()

    async def _serve(self) -> None:
        witness.set(Example(named=False))  # so that the root has the worker's name
        async with open_supervisor(self._root, **self._options) as supervisor:
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
    """An async function that another thread wants to run in this thread."""

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
        """Return the function's result, or raise the function's exception.

        Raises:
            trio.ClosedResourceError: there is neither: the thread was closed meanwhile.
        """
        if self._error is not None:
            raise self._error
        if not self._returned:
            raise trio.ClosedResourceError(_CLOSED)
        return self._returned[0]


def _refuse_in_trio(instead: str) -> None:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:  # no run is in this thread; `in_trio_run` came with Trio 0.28
        return
    raise InvalidValue(f"this call would block all tasks of this Trio run: {instead}")


def _is_cancellation(error: BaseException) -> bool:
    """Whether an error is only Cancelled; several cancelled tasks come as a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)
