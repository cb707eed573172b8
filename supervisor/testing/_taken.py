"""A container that is supervised in another thread, for a sync test: it waits, reads and writes."""

from __future__ import annotations

import io
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from ..container import Container, Stopped
from ..running import MAX_OUTPUT_BYTES, Completed
from ..tasks import granted
from ..values import DeadlineExpired, ExitStatus, State, check_seconds
from ._thread import SupervisorThread

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RUN_SECONDS: Final = 60.0
"""How long a program may run, or be waited for, if nobody says so."""

T = TypeVar("T")


class TakenContainer:
    """A running container that `SharedPool.take` gives to a sync test, for a ``with`` block.

    Whoever has it may use it in any thread, but not in a Trio task: that would be blocked. After
    the block it has no methods that work.
    """

    def __init__(self, thread: SupervisorThread, box: Container, *, fed: bool) -> None:
        self._thread = thread
        self._box = box
        # One that isn't left to the taker has been fed with bytes already.
        self._stdin = None if fed or box.stdin is None else _Input(self, box.stdin)
        self._stdout = self._reader(box.stdout)
        self._stderr = self._reader(box.stderr)

    def __repr__(self) -> str:
        return f"<supervisor.testing.TakenContainer {self.id!r}: {self.state.value}>"

    # ---- what it is -----------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id."""
        return self._box.id

    @property
    def args(self) -> tuple[str, ...]:
        """The program that it runs, and its arguments."""
        return self._box.init.args

    @property
    def pid(self) -> int | None:
        """The pid of its init on the host, or None when that has ended."""
        return self._box.pid

    @property
    def state(self) -> State:
        """Where it stands in its lifecycle."""
        return self._box.state

    @property
    def status(self) -> ExitStatus | None:
        """How its init ended; None while it runs."""
        return self._box.status

    # ---- its streams ------------------------------------------------------------------------

    @property
    def stdin(self) -> io.RawIOBase | None:
        """What it reads, if it was taken with ``stdin=PIPE``: a binary file, unbuffered.

        ``write`` returns when all was written, within 60 seconds, or raises DeadlineExpired, or
        BrokenPipeError where nobody reads any more. ``close`` is the end of it.
        """
        return self._stdin

    @property
    def stdout(self) -> io.BufferedReader | None:
        """What it writes, if the pool's ``stdout`` is PIPE, as it is by default: a binary file.

        A read waits for 60 seconds at most, and raises DeadlineExpired. ``read1`` and ``readline``
        return as soon as there is something. What nobody reads fills the pipe, and then the program
        waits.
        """
        return self._stdout

    @property
    def stderr(self) -> io.BufferedReader | None:
        """Its errors, likewise."""
        return self._stderr

    # ---- what is done with it -----------------------------------------------------------------

    def run(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | bytearray | memoryview = b"",
        max_output_bytes: int | None = MAX_OUTPUT_BYTES,
        check: bool = True,
        deadline: float | None = RUN_SECONDS,
    ) -> Completed:
        """Run a further program in it, beside the first one, to its end: a client, say.

        Arguments, result and errors are those of `Container.run`; its output is captured.
        """
        return self._do(
            partial(
                self._box.run,
                args,
                env=env,
                cwd=cwd,
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                max_output_bytes=max_output_bytes,
                check=check,
                deadline=deadline,
            )
        )

    def wait(self, deadline: float = RUN_SECONDS) -> ExitStatus:
        """Wait until it has ended, so many seconds.

        Raises:
            DeadlineExpired: it still runs.
        """
        return self._within(check_seconds(deadline, "deadline"), "it still runs", self._box.wait)

    def stop(self, grace: float | None = None) -> Stopped:
        """Ask it to end, wait, and kill it if it doesn't; as `Container.stop`."""
        return self._do(partial(self._box.stop, grace))

    def kill(self) -> None:
        """SIGKILL all of its processes; as `Container.kill`. `wait` waits for the end."""
        self._do(_awaited(self._box.kill))

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal to its init; as `Container.send_signal`."""
        self._do(_awaited(partial(self._box.send_signal, number)))

    # ---- in the thread --------------------------------------------------------------------------

    def _reader(self, stream: trio.abc.ReceiveStream | None) -> io.BufferedReader | None:
        if stream is None:
            return None
        raw: Any = _Output(self, stream)
        return io.BufferedReader(raw)

    def _do(self, function: Callable[[], Awaitable[T]]) -> T:
        return self._thread.run_sync(function)

    def _within(self, seconds: float, late: str, function: Callable[[], Awaitable[T]]) -> T:
        """Do something with a deadline."""

        async def do() -> T:
            with granted(seconds):
                return await function()
            raise DeadlineExpired(late, seconds=seconds, container=self.id)

        return self._do(do)


def _awaited(function: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    async def call() -> T:
        return function()

    return call


class _Output(io.RawIOBase):
    """A stream of the thread's, to read from. It is closed there, with its container."""

    def __init__(self, box: TakenContainer, stream: trio.abc.ReceiveStream) -> None:
        super().__init__()
        self._box = box
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        receive = partial(self._stream.receive_some, len(view))
        got = self._box._within(RUN_SECONDS, "it wrote nothing", receive)
        view[: len(got)] = got
        return len(got)


class _Input(io.RawIOBase):
    """A stream of the thread's, to write to."""

    def __init__(self, box: TakenContainer, stream: trio.abc.SendStream) -> None:
        super().__init__()
        self._box = box
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self.closed:
            raise ValueError("write to a closed stream")
        content = bytes(memoryview(content))
        send = partial(self._stream.send_all, content)
        try:
            self._box._within(RUN_SECONDS, "it didn't read what was written to it", send)
        except trio.BrokenResourceError as error:
            raise BrokenPipeError("nobody reads it any more") from error
        return len(content)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._box._do(self._stream.aclose)

    def __del__(self) -> None:
        """Nothing: it is closed with its container, and here we may be in any thread."""
