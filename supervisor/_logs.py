"""Follow the log of a process."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import Self

import trio
from trio_util import move_on_when

from ._errors import InvalidValue
from ._inotify import DirectoryWatch
from .stdio import LogFiles, LogRecord, open_own, parse_record

_BATCH = 1000
_TAIL_BYTES = 32 * 1024  # the longest record, 16 KiB, and one before it

Since = datetime | float | None


class Logs(AsyncIterator[LogRecord]):
    """The records of a process's log, the oldest first: ``async for record in ...``.

    With ``follow`` it waits for more, across rotations, until the process has ended and all was
    read. Leaving the loop early, close it: ``async with process.logs(...) as records:``.

    A reader that is slower than the program may be overtaken by rotation: see `gaps`.
    """

    def __init__(
        self,
        path: str,
        *,
        is_there: Callable[[], bool],
        follow: bool,
        since: Since,
        tail: int | None,
        is_complete: Callable[[], bool],
        wait_complete: Callable[[], Awaitable[None]],
    ) -> None:
        if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or tail < 0):
            raise InvalidValue(f"tail must be None or an int of 0 or more, not {tail!r}")
        self._since_ns = _nanoseconds(since)
        self._skipping = tail is not None
        self._last: deque[LogRecord] = deque(maxlen=tail)
        self._follow = follow
        self._is_complete = is_complete
        self._wait_complete = wait_complete
        self._directory = os.path.dirname(path)
        self._files = LogFiles(path, is_there)
        self._watch: DirectoryWatch | None = None
        self._pending: deque[LogRecord] = deque()
        self._over = False

    @property
    def gaps(self) -> int:
        """How often rotation has overtaken this reader, and records may have been lost to it.

        It had removed the file that was being read before the next one was begun. How many
        records, if any, stood between them isn't known. 0 means that none was lost.
        """
        return self._files.gaps

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogRecord:
        """Return the next record.

        Cancellation: nothing is lost; the next call returns it.
        """
        await trio.lowlevel.checkpoint()
        while not self._pending:
            if self._over:
                await self.aclose()
                raise StopAsyncIteration
            await self._fill()
        return self._pending.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its files; there are no more records then."""
        self._over = True
        self._pending.clear()
        self._files.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await trio.lowlevel.checkpoint()

    async def _fill(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._follow and self._watch is None:
            self._watch = DirectoryWatch(self._directory)  # from here on nothing is missed
        complete = self._is_complete()  # asked first: then what is there is all
        if self._skipping:
            await self._skip_to_tail()
        elif (batch := self._batch()) is not None:
            self._pending.extend(batch)
            return
        if self._pending:
            return
        if complete or self._watch is None:
            self._over = True
            return
        async with move_on_when(self._wait_complete):
            await self._watch.wait()

    async def _skip_to_tail(self) -> None:
        while (batch := self._batch()) is not None:
            self._last.extend(batch)  # kept here: it may be cancelled now and go on later
            await trio.lowlevel.checkpoint()
        self._skipping = False
        self._pending.extend(self._last)
        self._last.clear()

    def _batch(self) -> list[LogRecord] | None:
        """Return what is wanted of some that follow; None if there are none now."""
        records = self._files.read(_BATCH)
        if records is None:
            return None
        return [record for record in records if record.at_ns >= self._since_ns]


def log_tail(path: str) -> bytes:
    """Return what the last records of a log hold; nothing if there is none."""
    with contextlib.suppress(OSError), open_own(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        records = (parse_record(line) for line in file.read(_TAIL_BYTES).split(b"\n"))
        return b"".join(record.written for record in records if record is not None)
    return b""


def _nanoseconds(since: Since) -> int:
    if since is None:
        return 0
    with contextlib.suppress(ValueError, OverflowError):  # not a number, or none that can be
        if isinstance(since, datetime):
            return int(since.timestamp() * 1e9)
        if isinstance(since, int | float) and not isinstance(since, bool):
            return int(since * 1e9)
    raise InvalidValue(f"since must be None, a datetime or seconds since 1970, not {since!r}")
