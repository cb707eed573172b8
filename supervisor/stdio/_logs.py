"""`Logs`: read or follow the log of a process."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from fractions import Fraction
from types import TracebackType
from typing import Self

import trio

from ..tasks import DirectoryWatch, background_nursery, protected, within
from ..values import EPOCH, InvalidValue, check_flag, check_int
from ._log_files import LogFiles
from ._log_index import Cursor, open_own
from ._log_tail import Tail
from ._records import LogRecord, parse_record

_BATCH = 1000
_TAIL_BYTES = 32 * 1024  # the longest record, 16 KiB, and the record before that
_LATE_NS = 50_000_000  # the shim writes a record a moment after the record's time
_LEAST_NS = 10**12  # a larger int is nanoseconds: as seconds, this would be the year 33658
_MOST_NS = 2**63

Since = datetime | float | None


@protected
class Logs(AsyncIterator[LogRecord]):
    """The records of a process's log, the oldest first: ``async for record in ...``.

    With ``follow`` the loop waits for more records, across rotations, until the process has ended
    and all was read. If you leave the loop early, use
    ``async with process.logs(...) as records:``, which closes the files.

    If a reader is slower than the program, rotation may remove records before they are read: see
    `gaps`. A later reader continues with ``after``, the cursor of the last record read.
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
        until: Since = None,
        after: str | None = None,
        index: str = "",
    ) -> None:
        if tail is not None:
            check_int(tail, "tail", least=0, most=sys.maxsize)
        self._since_ns = _nanoseconds(since)
        self._until_ns = None if until is None else _span("until", until)[1]
        self._files = LogFiles(path, is_there, index)
        if after is not None:
            self._files.seek(Cursor.parse(after))
        self._tail = None if tail is None else Tail(tail, after)
        self._skipping = tail is not None
        self._follow = check_flag(follow, "follow")
        self._is_complete = is_complete
        self._wait_complete = wait_complete
        self._directory = os.path.dirname(path)
        self._watch: DirectoryWatch | None = None
        self._pending: deque[LogRecord] = deque()
        self._passed = False  # `until`
        self._over = False

    @property
    def gaps(self) -> int:
        """How often this reader may have missed records.

        Rotation removed records before they were read, also between two readers (``after``); or
        another program moved or emptied the log. The number of missed records isn't known, and
        may be 0. If `gaps` is 0, the reader missed no record that was in the log. Records that
        never got into the log, because of a full disk, aren't counted.
        """
        return self._files.gaps

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogRecord:
        """Return the next record.

        Cancellation: no record is lost; the next call returns the record.
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
        """Close the log's files; afterwards there are no more records."""
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
            self._watch = DirectoryWatch(self._directory)  # from here on no change is missed
        # Ask before reading: if complete, the files hold all records now.
        complete = self._is_complete() or self._passed or self._seconds_left() <= 0
        if self._skipping:
            await self._skip_to_tail()
            return
        if (batch := self._batch()) is not None:
            self._pending.extend(batch)
            return
        if complete or self._watch is None:
            self._over = True
            return
        with within(self._seconds_left(), still=False):
            async with background_nursery() as nursery:
                nursery.start_soon(_end_when, self._wait_complete, nursery.cancel_scope)
                await self._watch.wait()

    def _seconds_left(self) -> float:
        """Return how long until all wanted records are in the file."""
        if self._until_ns is None:
            return math.inf
        return (self._until_ns + _LATE_NS - time.time_ns()) / 1e9

    async def _skip_to_tail(self) -> None:
        """Read the whole log once, to find where the last lines begin."""
        assert self._tail is not None
        while (records := self._files.read(_BATCH)) is not None:
            for record in records:
                self._tail.note(record, wanted=self._is_wanted(record))
            await trio.lowlevel.checkpoint()  # after a cancellation, the next call goes on here
        self._skipping = False
        self._tail.turn(self._files)

    def _batch(self) -> list[LogRecord] | None:
        """Return the wanted ones of the next records; None if there are no new records now."""
        records = self._files.read(_BATCH)
        if records is None:
            return None
        if self._tail is not None:
            records = [one for one in records if self._tail.shows(one, self._files)]
        return [record for record in records if self._is_wanted(record)]

    def _is_wanted(self, record: LogRecord) -> bool:
        if self._until_ns is not None and record.at_ns > self._until_ns:
            self._passed = True
            return False
        return record.at_ns >= self._since_ns


@trio.lowlevel.enable_ki_protection
async def _end_when(over: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await over()
    scope.cancel()


def log_tail(path: str) -> bytes:
    """Return what the program wrote in the last records of a log; ``b""`` without a log."""
    with contextlib.suppress(OSError), open_own(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        records = (parse_record(line) for line in file.read(_TAIL_BYTES).split(b"\n"))
        return b"".join(record.written for record in records if record is not None)
    return b""


def _nanoseconds(since: Since) -> int:
    """Return the first wanted nanosecond."""
    return 0 if since is None else _span("since", since)[0]


def _span(name: str, value: object) -> tuple[int, int]:
    """Return the first and the last nanosecond that the caller's time may mean.

    A datetime means a whole microsecond, and a float about as much: ``record.at_ns / 1e9`` may be
    off by two of the float's smallest steps.
    """
    with contextlib.suppress(ValueError, OverflowError):  # NaN, infinity, or out of range
        if isinstance(value, datetime):
            first = (value.astimezone() - EPOCH) // timedelta(microseconds=1) * 1000
            return first, first + 999
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_NS:
            at_ns = value if abs(value) >= _LEAST_NS else value * 10**9
            return at_ns, at_ns
        if isinstance(value, float):
            slack = 2 * Fraction(math.ulp(value))
            early, late = (Fraction(value) - slack) * 10**9, (Fraction(value) + slack) * 10**9
            return math.ceil(early), math.floor(late) + 999
    raise InvalidValue(
        f"{name} must be None, a datetime, seconds since 1970, or nanoseconds as an int, "
        f"not {value!r}"
    )
