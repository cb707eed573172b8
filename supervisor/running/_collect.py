"""Feed a program, collect the output, and wait until the program has ended."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from ..process import Process, task_of
from ..stdio import OutputStream
from ..tasks import background_nursery, forked, granted, within
from ..values import DeadlineExpired, OutputTooLarge
from ._completed import Completed, checked, said
from ._end import warn
from ._holders import holders
from ._wanted import RunOptions

_CHUNK_BYTES: Final = 64 * 1024


async def stay(
    process: Process,
    wanted: RunOptions,
    *,
    check: bool,
    deadline: float | None,
    end: Callable[[], Awaitable[RuntimeWarning | None]],
) -> Completed:
    """Stay until a process has ended, or end the process with ``end``; see `Container.run`.

    On a cancellation or an error, the warning that ``end`` returns is issued. Otherwise an error of
    our own says that the program was ended.
    """
    completed = None
    task_of(process).streams.hand_over(wanted.given)
    task_of(process).delivery.asked = True
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
    lost = task_of(process).delivery.failure(process.status, **_contents(collected))
    if lost is not None:
        raise lost
    return checked(completed, container=process.container) if check else completed


async def collect(
    process: Process, wanted: RunOptions, collected: Mapping[str, _Collected]
) -> Completed | None:
    """Feed a process, collect the output, and wait until the process has ended.

    Returns:
        None as soon as a stream turns out to be too long.

    Raises:
        SupervisorClosed: as `Process.wait`; not in a group.

    Cancellation: the process goes on; what was read so far is in ``collected``.
    """
    async with background_nursery() as nursery:
        if wanted.input is not None and process.stdin is not None:
            nursery.start_soon(
                feed, process.stdin, wanted.input, name=f"{task_of(process).task_name}: stdin"
            )
        for name, one in collected.items():
            nursery.start_soon(
                one.read, nursery.cancel_scope, name=f"{task_of(process).task_name}: {name}"
            )
        await process.wait()
        with within(task_of(process).deadlines.drain):
            for one in collected.values():
                await one.complete.wait()
    if _too_long(collected) is not None:
        return None
    await task_of(process).delivery.wait()
    late = [(name, one.stream) for name, one in collected.items() if not one.complete.is_set()]
    held = await task_of(process).group.carry_out(holders(process, late)) if late else []
    task_of(process).streams.abandon()  # all but the streams that were handed over
    assert process.status is not None
    return Completed(
        args=process.args, status=process.status, held=tuple(held), **_contents(collected)
    )


def _ended(
    container: str, deadline: float | None, collected: Mapping[str, _Collected]
) -> OutputTooLarge | DeadlineExpired:
    """Return the error for a program that we ended: the first cause counts."""
    contents = _contents(collected)
    stream = _too_long(collected)
    if stream is None:
        assert deadline is not None
        return DeadlineExpired(
            f"the program ran longer than {deadline:g} seconds and was ended{said(**contents)}",
            seconds=deadline,
            container=container,
            **contents,
        )
    limit = collected[stream].limit
    assert limit is not None
    return OutputTooLarge(
        f"the program put out more than {limit} bytes on {stream} and was ended: raise "
        f"max_output_bytes, send {stream} to LOG or a file, or use create, exec or take, and read "
        "the stream as output comes",
        stream=stream,
        limit=limit,
        container=container,
        **contents,
    )


def _too_long(collected: Mapping[str, _Collected]) -> str | None:
    return next((name for name, one in collected.items() if one.too_long), None)


@trio.lowlevel.enable_ki_protection
async def feed(stream: trio.abc.SendStream, content: bytes | bytearray | memoryview) -> None:
    async with stream:
        # The program has closed the input early, or another task has deleted the container.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(content)


class _Collected:
    """The captured content of a stream, never longer than the limit.

    Attributes:
        stream: the stream.
        limit: how many bytes are allowed; None for no limit.
        content: the bytes that were read.
        too_long: whether the stream was longer than the limit.
        complete: set at the end of the stream.
    """

    def __init__(self, stream: OutputStream, limit: int | None) -> None:
        self.stream = stream
        self.limit = limit
        # Unlike a bytearray, a BytesIO returns the content without a copy, so memory isn't needed
        # twice; and the buffer grows in place.
        self.content = io.BytesIO()
        self.too_long = False
        self.complete = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def read(self, reading: trio.CancelScope) -> None:
        """Read until the end of the stream; cancel ``reading`` if the stream is too long."""
        # Closed: another task has deleted the container, and no more output comes.
        with contextlib.suppress(trio.ClosedResourceError):
            while chunk := await self.stream.receive_some(self._wanted_bytes()):
                # A cancellation or deadline that came first counts.
                if not self._keep(chunk) and not _is_cancelled():
                    self.too_long = True
                    reading.cancel()
        self.complete.set()

    def _wanted_bytes(self) -> int:
        """Return how much to read: one byte above the limit shows that the stream is too long."""
        if self.limit is None:
            return _CHUNK_BYTES
        return min(_CHUNK_BYTES, self.limit - self.content.tell() + 1)

    def _keep(self, chunk: bytes) -> bool:
        """Keep the part of a chunk that is within the limit; return whether that is all of it."""
        room = len(chunk) if self.limit is None else self.limit - self.content.tell()
        self.content.write(chunk[:room])
        return room >= len(chunk)


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() <= trio.current_time()


def _contents(collected: Mapping[str, _Collected]) -> dict[str, bytes | None]:
    """Return what was captured so far; None for a stream that isn't captured."""
    return {
        name: collected[name].content.getvalue() if name in collected else None
        for name in ("stdout", "stderr")
    }
