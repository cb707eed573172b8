"""A log's files in their order, while they are written, rotated, moved and emptied."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..values import InvalidValue, scarcity
from ._log_index import HEAD_BYTES, Cursor, LogIndex, open_own
from ._records import LogRecord, parse_record

_READ_BYTES = 256 * 1024
_LINE_BYTES = 64 * 1024  # a shim's hold 16 KiB and some words


class _Part:
    """One file of a log, open.

    Attributes:
        head: its beginning, by which it is known.
        start: at which byte of the whole it begins; None if nobody knows.
        size: its size when it was opened, in bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        status = os.fstat(file.fileno())
        self.head = os.pread(file.fileno(), HEAD_BYTES, 0)
        self.size = status.st_size
        self.start: int | None = None
        self._identity = (status.st_dev, status.st_ino, self.head)

    def is_same(self, other: _Part | None) -> bool:
        """Whether that is the same file, and wasn't emptied meanwhile."""
        return other is not None and self._identity == other._identity

    def is_at(self, path: str) -> bool:
        """Whether it is what stands at a path just now."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            return False

    def is_emptied(self) -> bool:
        """Whether somebody else has emptied it, and it may have been begun anew since."""
        return os.pread(self.file.fileno(), HEAD_BYTES, 0) != self.head

    def close(self) -> None:
        """Close it."""
        self.file.close()


class LogFiles:
    """Reads a log that is written and rotated meanwhile: every record that is kept, once.

    Attributes:
        gaps: how often something may have been lost: what follows isn't what came next.

    The files are PATH, PATH.1, PATH.2, ..., PATH being the newest. With an index each of them
    has its place in the whole, whatever it is called just now. Without one, which an older shim's
    log has none of, a file is followed by the one before it in this list.

    Args:
        path: the newest.
        is_there: whether what is at that path is still the log that is meant.
        index: the path of its index.
    """

    def __init__(self, path: str, is_there: Callable[[], bool], index: str = "") -> None:
        self._path = path
        self._is_there = is_there
        self._index = index
        self._name = ""
        self._part: _Part | None = None
        self._offset = 0  # in it
        self._position: int | None = None  # in the whole
        self._resume: Cursor | None = None  # in a log without an index
        self._begun = b""
        self._lines: deque[tuple[bytes, str]] = deque()
        self.gaps: int = 0

    def seek(self, cursor: Cursor | None) -> None:
        """Go on behind a record, or from the oldest one.

        Raises:
            InvalidValue: it isn't a record of this log.
        """
        self.close()
        self._lines.clear()
        self._position = self._resume = None
        if cursor is None:
            return
        index = LogIndex.read(self._index)
        if index is not None and cursor.log == index.name:
            self._position = cursor.at
        elif cursor.head and (index is None or index.holds(cursor.head)):
            self._resume = cursor
        else:
            raise InvalidValue(f"after is the cursor of a record in another log: {cursor}")

    def read(self, limit: int) -> list[LogRecord] | None:
        """Return up to ``limit`` of those that are there and weren't read yet.

        It takes a moment, however much isn't a record: [] means that there may be more.

        Returns:
            None if there are none now.
        """
        if not self._lines and not self._read_lines():
            return None
        taken = [self._lines.popleft() for _ in range(min(limit, len(self._lines)))]
        return [record for line in taken if (record := parse_record(*line)) is not None]

    def close(self) -> None:
        """Close the file; reading goes on with the oldest."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def _read_lines(self) -> bool:
        """Read the next chunk, whole lines or not; say whether there was any."""
        while True:
            part = self._part
            # Asked first: what a rotated file holds now is all that it ever will.
            over = part is not None and not part.is_at(self._path)
            if part is not None and self._read_chunk(part):
                return True
            if part is not None and not over and not part.is_emptied():
                return False
            try:
                following, adjacent = self._next()
            except OSError as error:
                raise scarcity(error) from error
            if following is None:
                return False
            if not self._is_there():  # asked last: it may have been replaced meanwhile
                following.close()
                return False
            self._go_on(following, adjacent)

    def _read_chunk(self, part: _Part) -> bool:
        chunk = os.pread(part.file.fileno(), _READ_BYTES, self._offset)
        if not chunk or part.is_emptied():  # looked at last: then it wasn't before, either
            return False
        end = self._offset
        first, *rest = chunk.split(b"\n")
        *lines, begun = [self._begun + first, *rest]
        for line, length in zip(lines, map(len, (first, *rest)), strict=False):
            end += length + 1
            if len(line) <= _LINE_BYTES:
                self._lines.append((line, self._cursor(part, end)))
        # Of what is no record, such as the zeros that a crashed disk has left, only so much is
        # kept that its end is known to be the end of something too long.
        self._begun = begun[: _LINE_BYTES + 1]
        self._offset += len(chunk)
        if part.start is not None:
            self._position = part.start + self._offset
        return True

    def _cursor(self, part: _Part, end: int) -> str:
        if part.start is None or not self._name:
            return str(Cursor(part.head.hex(), end))
        return str(Cursor(self._name, part.start + end))

    def _go_on(self, part: _Part, adjacent: bool) -> None:
        """Read a file from where we are in the whole, or from its beginning."""
        missed = (self._part is not None or self._resume is not None) and not adjacent
        self._offset = 0
        if self._resume is not None and adjacent:
            self._offset = self._resume.at
        elif self._position is not None and part.start is not None:
            missed = part.start > self._position
            self._offset = max(0, self._position - part.start)
        self.close()
        self._part, self._resume, self._begun = part, None, b""
        self._position = None if part.start is None else part.start + self._offset
        if self._offset and os.pread(part.file.fileno(), 1, self._offset - 1) != b"\n":
            self._begun, missed = b"\0", True  # no record begins here, whatever it looks like
        self.gaps += missed

    def _next(self) -> tuple[_Part | None, bool]:
        """Open the file that follows, or the oldest.

        From the newest to the oldest: a rotation meanwhile moves files the same way, so that one
        may be met twice, but none is missed.

        Returns:
            The file, or None if there is none; and, where its place in the whole isn't known,
            whether it is the next one for certain.
        """
        best: _Part | None = None
        try:
            for part in self._parts():
                if self._position is None and part.is_same(self._part):
                    part.close()
                    return best, True
                if self._is_better(part, best):
                    best, part = part, best  # noqa: PLW2901
                if part is not None:
                    part.close()
                if self._resume is not None and best is not None and self._is_resumed(best):
                    return best, True
        except BaseException:
            if best is not None:
                best.close()
            raise
        return best, False

    def _is_resumed(self, part: _Part) -> bool:
        return self._resume is not None and part.head == self._resume.head

    def _is_better(self, part: _Part, best: _Part | None) -> bool:
        """Whether it comes first of what is behind our place; or, in a walk, before all so far."""
        if self._position is None:
            return True
        if part.start is None:
            return False
        behind = part.start >= self._position or part.start + part.size > self._position
        return behind and (best is None or best.start is None or part.start < best.start)

    def _parts(self) -> Iterator[_Part]:
        """Open those that have a beginning, and are of this log."""
        index = self._look_up()
        if index is None:
            self._position = None
        for path in self._names():
            try:
                part = _Part(open_own(path))
            except FileNotFoundError:
                continue
            if index is None or part.head not in index.starts:
                index = self._look_up()  # where it begins was noted before its first record
            if index is not None:
                part.start = index.starts.get(part.head)
            if len(part.head) == HEAD_BYTES and (index is None or index.holds(part.head)):
                yield part
            else:
                part.close()

    def _look_up(self) -> LogIndex | None:
        index = LogIndex.read(self._index)
        self._name = "" if index is None else index.name
        return index

    def _names(self) -> Iterator[str]:
        yield self._path
        directory, name = os.path.split(self._path)
        numbers = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(directory):
                suffix = entry.removeprefix(f"{name}.")
                if suffix != entry and suffix.isdecimal():
                    numbers.append(int(suffix))
        last = max(numbers, default=0) + 1
        number = 1
        while number <= last:  # one more than there are, as often as a rotation has added it
            path = f"{self._path}.{number}"
            if number == last and os.path.lexists(path):
                last += 1
            yield path
            number += 1
