"""A running container for a sync test; the supervisor lives in another thread."""

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
"""The default deadline for runs, waits, reads and writes."""

T = TypeVar("T")


class TakenContainer:
    """A running container that `SharedPool.take` gives to a sync test, for a ``with`` block.

    Usable in any thread, but not in a Trio task, which would block. After the block the methods
    don't work any more.
    """

    def __init__(self, thread: SupervisorThread, box: Container, *, fed: bool) -> None:
        self._thread = thread
        self._box = box
        # Without ``stdin=PIPE`` the pool has already sent the input.
        self._stdin = None if fed or box.stdin is None else _Input(self, box.stdin)
        self._stdout = self._reader(box.stdout)
        self._stderr = self._reader(box.stderr)

    def __repr__(self) -> str:
        return f"<supervisor.testing.TakenContainer {self.id!r}: {self.state.value}>"

    # ---- the container's properties ---------------------------------------------------------

    @property
    def id(self) -> str:
        """The container's id."""
        return self._box.id

    @property
    def args(self) -> tuple[str, ...]:
        """The container's program and the program's arguments."""
        return self._box.init.args

    @property
    def pid(self) -> int | None:
        """The pid of the init on the host; None after the init has ended."""
        return self._box.pid

    @property
    def state(self) -> State:
        """The container's state."""
        return self._box.state

    @property
    def status(self) -> ExitStatus | None:
        """The init's exit status; None while the init runs."""
        return self._box.status

    # ---- streams ------------------------------------------------------------------------------

    @property
    def stdin(self) -> io.RawIOBase | None:
        """The program's input, if taken with ``stdin=PIPE``: an unbuffered binary file.

        ``write`` returns when everything is written. After 60 seconds ``write`` raises
        DeadlineExpired, and without a reader BrokenPipeError. ``close`` ends the input.
        """
        return self._stdin

    @property
    def stdout(self) -> io.BufferedReader | None:
        """The program's output, if the pool's ``stdout`` is PIPE (the default): a binary file.

        A read that gets nothing for 60 seconds raises DeadlineExpired. ``read1`` and ``readline``
        return as soon as there is something. Unread output fills the pipe, and then the program
        waits.
        """
        return self._stdout

    @property
    def stderr(self) -> io.BufferedReader | None:
        """The program's errors, likewise."""
        return self._stderr

    # ---- operations ---------------------------------------------------------------------------

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
        """Run a further program in the container until that program ends: a client, for instance.

        Arguments, result and errors are those of `Container.run`; the output is captured.
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
        """Wait for the container's end, ``deadline`` seconds at most.

        Raises:
            DeadlineExpired: the container still runs.
        """
        seconds = check_seconds(deadline, "deadline")
        return self._within(seconds, "the container still runs", self._box.wait)

    def stop(self, grace: float | None = None) -> Stopped:
        """Ask the program to end, wait, and kill the program if needed; as `Container.stop`."""
        return self._do(partial(self._box.stop, grace))

    def kill(self) -> None:
        """SIGKILL all processes of the container; as `Container.kill`. `wait` waits for the end."""
        self._do(_awaited(self._box.kill))

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal to the init; as `Container.send_signal`."""
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
        """Run an async function in the thread, with a deadline."""

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
    """An output stream, for the test to read. The thread closes the stream with the container."""

    def __init__(self, box: TakenContainer, stream: trio.abc.ReceiveStream) -> None:
        super().__init__()
        self._box = box
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        receive = partial(self._stream.receive_some, len(view))
        got = self._box._within(RUN_SECONDS, "the program wrote nothing", receive)
        view[: len(got)] = got
        return len(got)


class _Input(io.RawIOBase):
    """The input stream, for the test to write."""

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
            self._box._within(RUN_SECONDS, "the program didn't read the input", send)
        except trio.BrokenResourceError as error:
            raise BrokenPipeError("the program's input has no reader any more") from error
        return len(content)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._box._do(self._stream.aclose)

    def __del__(self) -> None:
        """Do nothing: this may run in any thread, and the thread closes the stream."""
