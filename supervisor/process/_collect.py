"""Feed a process, collect its output, wait for its end: what `run` means."""

from __future__ import annotations

import contextlib
import io
import math
import os
import signal
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import attrs
import trio

from ..cgroups import Steps
from ..spec import behind_init
from ..stdio import PIPE, OutputStream, StdioArgument
from ..tasks import background_nursery, forked, granted, nap, within
from ..values import (
    Cause,
    DeadlineExpired,
    ExitStatus,
    InvalidValue,
    OutputTooLarge,
    ProcessEnded,
    ProcessFailed,
    ShimError,
    check_flag,
    check_seconds,
    printable,
)
from ._options import Input
from ._process import Process, ask
from ._shared import shielded

MAX_OUTPUT_BYTES: Final = 64 << 20
"""How much is captured of each stream, if nobody says so."""

GRACE_SECONDS = 5.0
_CHUNK_BYTES = 64 * 1024
_PAUSE_SECONDS = 0.001
_SAID_BYTES = 400
_SEARCH_SECONDS = 0.05
_FIRST_SECONDS = 1.0  # until somebody was found
_MAX_HOLDERS = 64

_Identity = tuple[int, int]

T = TypeVar("T")


@attrs.frozen
class Holder:
    """Somebody who still held a stream open when the process itself had ended.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        pid: a process that holds it; None if none could be found.
        program: its name.
    """

    stream: str
    pid: int | None
    program: str | None

    def __str__(self) -> str:
        program = printable(self.program or "somebody")
        return f"{self.stream}: {program} (pid {self.pid or 'unknown'})"


@attrs.frozen(kw_only=True)
class Completed:
    """What a program that was run has left; as `subprocess.CompletedProcess`.

    Attributes:
        args: the program and its arguments.
        status: how it ended.
        stdout: its output, if that was captured.
        stderr: its errors, if they were captured.
        held: who still held its output open ``deadlines.drain`` after its end, so that
            ``stdout`` or ``stderr`` may not be all; empty as a rule. Of very many only the first
            that were found in a moment, and one whose ``pid`` is None.
    """

    args: tuple[str, ...]
    status: ExitStatus
    stdout: bytes | None
    stderr: bytes | None
    held: tuple[Holder, ...] = ()

    @property
    def returncode(self) -> int:
        """As `Process.returncode`."""
        return self.status.returncode

    def check_returncode(self) -> None:
        """Raise ProcessFailed if the program did anything but exit with 0."""
        checked(self, container=None)


@attrs.frozen(kw_only=True)
class RunOptions:
    """What is to be done with a process's streams, checked.

    Attributes:
        input: what it is fed with, or None.
        stdin, stdout, stderr: as for `Supervisor.create`.
        capture: the names of the streams that are collected.
        given: the names of those that are the caller's, who got them with what was started.
        max_output_bytes: how long each of them may be; None for as long as it is.
    """

    input: bytes | bytearray | memoryview | None
    stdin: StdioArgument
    stdout: StdioArgument
    stderr: StdioArgument
    capture: tuple[str, ...]
    given: tuple[str, ...]
    max_output_bytes: int | None


def run_options(
    *,
    started: bool = False,
    deadline: float | None = None,
    stdin: Input = b"",
    stdout: StdioArgument = None,
    stderr: StdioArgument = None,
    capture_stdout: bool = False,
    capture_stderr: bool = False,
    max_output_bytes: int | None = MAX_OUTPUT_BYTES,
    check: bool = True,
    deliver_cancel: object = None,
) -> RunOptions:
    """Check what the caller wants.

    Args:
        started: whether somebody gets what was started, by `trio.Nursery.start`, and with it the
            streams that are PIPE.

    Raises:
        InvalidValue: it doesn't go together.
    """
    check_flag(capture_stdout, "capture_stdout")
    check_flag(capture_stderr, "capture_stderr")
    check_flag(check, "check")
    if deliver_cancel is not None and not callable(deliver_cancel):
        raise InvalidValue(
            f"deliver_cancel must be an async function, not {type(deliver_cancel).__name__}"
        )
    alone = ": nobody would {}; {}, or start it with nursery.start(), which gives you the stream"
    for name, value, capture in (
        ("stdout", stdout, capture_stdout),
        ("stderr", stderr, capture_stderr),
    ):
        if capture and value is not None:
            raise InvalidValue(f"capture_{name} and {name} don't go together")
        if not capture and _is_pipe(value) and not started:
            does = alone.format("read it", f"capture_{name}=True does")
            raise InvalidValue(f"{name}=PIPE{does}")
    if _is_pipe(stdin) and not started:
        does = alone.format("write to it", "give it bytes")
        raise InvalidValue(f"stdin=PIPE{does}")
    if deadline is not None:
        check_seconds(deadline, "deadline")
    _check_max_output(max_output_bytes)
    feed = stdin if isinstance(stdin, bytes | bytearray | memoryview) else None
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    names = ("stdout",) * capture_stdout + ("stderr",) * capture_stderr
    return RunOptions(
        input=feed,
        # Nothing to read is an end of file at once, for which nobody has to be fed.
        stdin=(PIPE if len(feed) else None) if feed is not None else stdin,  # type: ignore[arg-type]
        stdout=PIPE if capture_stdout else stdout,
        stderr=PIPE if capture_stderr else stderr,
        capture=names,
        given=tuple(name for name, value in asked.items() if _is_pipe(value)),
        max_output_bytes=max_output_bytes,
    )


def _is_pipe(value: object) -> bool:
    return isinstance(value, int) and value == PIPE


def _check_max_output(value: object) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is not None and not fits:
        raise InvalidValue(
            f"max_output_bytes must be 1 or more, or None for no bound, not {value!r:.100}"
        )


async def collect(
    process: Process, wanted: RunOptions, collected: Mapping[str, _Collected]
) -> Completed | None:
    """Feed it, collect its output, and wait for its end.

    Returns:
        None as soon as a stream turns out to be too long.

    Raises:
        SupervisorClosed: as `Process.wait`; as it is, not in a group.

    Cancellation: it goes on; what was read so far is in ``collected``.
    """
    async with background_nursery() as nursery:
        if wanted.input is not None and process.stdin is not None:
            nursery.start_soon(
                feed, process.stdin, wanted.input, name=f"{process._task.task_name}: stdin"
            )
        for name, one in collected.items():
            nursery.start_soon(
                one.read, nursery.cancel_scope, name=f"{process._task.task_name}: {name}"
            )
        await process.wait()
        with within(process._task.deadlines.drain):
            for one in collected.values():
                await one.complete.wait()
    if _too_long(collected) is not None:
        return None
    await process._task.delivery.wait()
    late = [(name, one.stream) for name, one in collected.items() if not one.complete.is_set()]
    held = await process._task.carry_out(_holders(process, late)) if late else []
    process._task.streams.abandon()  # but what was handed over
    assert process.status is not None
    return Completed(
        args=process.args, status=process.status, held=tuple(held), **_contents(collected)
    )


@contextlib.asynccontextmanager
async def winding_up(process: Process) -> AsyncIterator[None]:
    """While it is asked to end: its input ends, and its last words keep nobody waiting.

    What was handed over to the caller is the caller's.
    """
    own_input, outputs = process._task.streams.own_ends()
    if own_input is not None:
        with contextlib.suppress(ProcessEnded, ShimError):
            process.close_stdin()
    async with background_nursery() as nursery:
        for stream in outputs:
            nursery.start_soon(_discard, stream, name=f"{process._task.task_name}: output")
        yield


def checked(completed: Completed, *, container: str | None) -> Completed:
    """Return it if the program exited with 0.

    Raises:
        ProcessFailed: it didn't.
    """
    if completed.status.code == 0:
        return completed
    said = _said(completed.stdout, completed.stderr)
    raise ProcessFailed(
        f"the program {_how(completed.status)}{said}",
        command=completed.args,
        status=completed.status,
        stdout=completed.stdout,
        stderr=completed.stderr,
        container=container,
    )


def _said(stdout: bytes | None, stderr: bytes | None) -> str:
    """Return the last of what a program has put out, for the end of a message."""
    parts = []
    for name, content in (("stderr", stderr or b""), ("stdout", stdout or b"")):
        text = content[-_SAID_BYTES:].decode(errors="replace").strip()
        if text:
            cut = "..." if len(content) > _SAID_BYTES else ""
            parts.append(f"; {name}: {cut}{text}")
    return "".join(parts)


def _how(status: ExitStatus) -> str:
    if status.cause is Cause.UNKNOWN:
        return f"ended, and how is {status}"
    return str(status) if status.code is not None else f"was {status}"


async def stay(
    process: Process,
    wanted: RunOptions,
    *,
    check: bool,
    deadline: float | None,
    end: Callable[[], Awaitable[RuntimeWarning | None]],
) -> Completed:
    """Stay with a process to its end, or call ``end``; see `Container.run`, `run_container`.

    What that warns of is said when we are cancelled; else an error tells that it was ended.
    """
    completed = None
    process._task.streams.hand_over(wanted.given)
    process._task.delivery.asked = True
    collected = {
        name: _Collected(getattr(process, name), wanted.max_output_bytes) for name in wanted.capture
    }
    try:
        with granted(math.inf if deadline is None else deadline):
            completed = await collect(process, wanted, collected)
    except BaseException:
        if not forked():
            warn(await end())
        raise
    if completed is None:
        await end()
        raise _ended(process.container, deadline, collected)
    lost = process._task.delivery.failure(process.status, **_contents(collected))
    if lost is not None:
        raise lost
    return checked(completed, container=process.container) if check else completed


def _ended(
    container: str, deadline: float | None, collected: Mapping[str, _Collected]
) -> OutputTooLarge | DeadlineExpired:
    """Return why a program was ended: what came first counts."""
    contents = _contents(collected)
    stream = _too_long(collected)
    if stream is None:
        assert deadline is not None
        return DeadlineExpired(
            f"the program ran longer than {deadline:g} seconds and was ended{_said(**contents)}",
            seconds=deadline,
            container=container,
            **contents,
        )
    limit = collected[stream].limit
    assert limit is not None
    return OutputTooLarge(
        f"the program put out more than {limit} bytes on {stream} and was ended: raise "
        f"max_output_bytes, have {stream} go to LOG or a file, or read it as it comes, with "
        "create, exec or take",
        stream=stream,
        limit=limit,
        container=container,
        **contents,
    )


def _too_long(collected: Mapping[str, _Collected]) -> str | None:
    return next((name for name, one in collected.items() if one.too_long), None)


async def end_process(
    process: Process, deliver_cancel: Callable[[Process], Awaitable[None]] | None
) -> RuntimeWarning | None:
    """Ask, wait, kill, wait, shielded, with deadlines; return what to say if it was killed."""
    try:
        with granted(GRACE_SECONDS, shield=True):
            async with winding_up(process):
                await deliver(deliver_cancel or _ask, process, process)
    finally:
        killed = process.status is None
        if killed:
            with contextlib.suppress(ProcessEnded, ShimError):
                process.kill()
            with shielded(process._task.deadlines.kill):
                await process.wait()
        process._task.streams.abandon()
    how = "SIGTERM" if deliver_cancel is None else "deliver_cancel"
    return stubborn(process, GRACE_SECONDS, how) if killed else None


async def deliver(
    deliver_cancel: Callable[[T], Awaitable[None]], target: T, process: Process
) -> None:
    """Have a program asked to end, and wait for its end; whoever still asks then is cancelled.

    As `trio.run_process`: who signals once more may come too late, and needn't expect that.

    Raises: what ``deliver_cancel`` raises, as it is.
    """
    raised: list[BaseException] = []
    async with background_nursery() as nursery:

        @trio.lowlevel.enable_ki_protection
        async def ask() -> None:
            try:
                await deliver_cancel(target)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                told = _but(error, (ProcessEnded, trio.Cancelled))
                if told is not None:
                    raised.append(told)
                    nursery.cancel_scope.cancel()

        nursery.start_soon(ask, name=f"{process._task.task_name}: deliver_cancel")
        await process.wait()
    if raised:
        raise raised.pop()


def _but(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """Return what is left of an error, or of a group of a nursery's, without those of a kind."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1]
    return None if isinstance(error, kinds) else error


def stubborn(process: Process, seconds: float, how: str) -> RuntimeWarning:
    """Return what to say of a program that didn't end when it was asked to, and was killed."""
    behind = behind_init(process.args)
    message = (
        f"the program {(behind or process.args)[0]!r} ({process.container}/{process.id}) ignored "
        f"{how} for {seconds:g} seconds, and was killed"
    )
    if not process.record.exec and behind is None:
        message += (
            ". As pid 1 it hears only what it has a handler for: a bundle with init=True helps, "
            "or another deliver_cancel"
        )
    return RuntimeWarning(message)


def warn(warning: RuntimeWarning | None) -> None:
    """Warn of something, if there is something to warn of."""
    if warning is not None:
        warnings.warn(warning, stacklevel=2)


async def _ask(process: Process) -> None:
    await ask(process, signal.SIGTERM)


@trio.lowlevel.enable_ki_protection
async def feed(stream: trio.abc.SendStream, content: bytes | bytearray | memoryview) -> None:
    async with stream:
        # It doesn't want all of it, or somebody has deleted its container.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(content)


@trio.lowlevel.enable_ki_protection
async def _discard(stream: trio.abc.ReceiveStream) -> None:
    with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        async for _ in stream:
            # 64 MiB/s: one that floods us until it is killed shan't have a processor for that.
            await nap(_PAUSE_SECONDS, still=False)


class _Collected:
    """What is captured of a stream; never more than the limit, and one byte to tell that by.

    Attributes:
        stream: it.
        limit: how long it may be; None for as long as it is.
        content: what was read of it.
        too_long: whether it turned out to be longer.
        complete: set at its end.
    """

    def __init__(self, stream: OutputStream, limit: int | None) -> None:
        self.stream = stream
        self.limit = limit
        # It gives its content away without a copy, unlike a bytearray, so that nothing is held
        # twice, and its buffer grows where it is.
        self.content = io.BytesIO()
        self.too_long = False
        self.complete = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def read(self, reading: trio.CancelScope) -> None:
        """Read it to its end; or cancel ``reading``, if it is longer than it may be."""
        # Closed: somebody has deleted its container, and there is no more to come.
        with contextlib.suppress(trio.ClosedResourceError):
            while chunk := await self.stream.receive_some(self._wanted_bytes()):
                # A cancellation, or a deadline, that came before is what counts.
                if not self._keep(chunk) and not _is_cancelled():
                    self.too_long = True
                    reading.cancel()
        self.complete.set()

    def _wanted_bytes(self) -> int:
        """Return how much to ask for: a byte more than may be kept tells that it is too long."""
        if self.limit is None:
            return _CHUNK_BYTES
        return min(_CHUNK_BYTES, self.limit - self.content.tell() + 1)

    def _keep(self, chunk: bytes) -> bool:
        """Keep what may be kept of it; say whether that is all."""
        room = len(chunk) if self.limit is None else self.limit - self.content.tell()
        self.content.write(chunk[:room])
        return room >= len(chunk)


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() <= trio.current_time()


def _contents(collected: Mapping[str, _Collected]) -> dict[str, bytes | None]:
    """Return what was captured so far; None for what isn't."""
    return {
        name: collected[name].content.getvalue() if name in collected else None
        for name in ("stdout", "stderr")
    }


def _holders(process: Process, late: Sequence[tuple[str, OutputStream]]) -> Steps[list[Holder]]:
    """Find who has fifos open for writing, among the processes of the container.

    It is a diagnosis, so it takes a moment at most, however many processes and descriptors there
    are, and a second until the first one: who isn't found by then is somebody.
    """
    fifos = {_identity(os.fstat(stream.fileno())): name for name, stream in late}
    found: list[Holder] = []
    begun = time.monotonic()
    with contextlib.closing(_search(process, fifos, found)) as search:
        for _ in search:
            patience = _SEARCH_SECONDS if found else _FIRST_SECONDS
            if time.monotonic() > begun + patience or len(found) >= _MAX_HOLDERS:
                found += [Holder(name, None, None) for name in fifos.values()]
                return found
            yield
    named = {holder.stream for holder in found}
    return found + [Holder(name, None, None) for name in fifos.values() if name not in named]


def _search(process: Process, fifos: Mapping[_Identity, str], found: list[Holder]) -> Steps[None]:
    """Look at every process of the container, a few descriptors at each step."""
    for pid in (yield from process._task.container_pid_steps()):
        missing = dict(fifos)
        for identity in _open_files(pid):
            name = missing.pop(identity, None) if identity is not None else None
            if name is not None:
                found.append(Holder(name, pid, _program(pid)))
            if not missing:
                break
            yield


def _open_files(pid: int) -> Iterator[_Identity | None]:
    """Go through what a process has open; None for what can't be seen."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            identity = None
            with contextlib.suppress(OSError):
                identity = _identity(entry.stat())
            yield identity


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _program(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return None
