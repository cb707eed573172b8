"""Read the files of a log in order, also while the files are written, rotated or emptied."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..values import InvalidValue, raise_if_scarce
from ._log_index import HEAD_BYTES, Cursor, LogIndex, open_own
from ._records import LogRecord, parse_record

_READ_BYTES = 256 * 1024
_LINE_BYTES = 64 * 1024  # a shim's line holds at most 16 KiB and some words


class _Part:
    """One open file of a log.

    Attributes:
        head: the file's first bytes, which identify the file.
        start: at which byte of the whole log the file begins; None if unknown.
        size: the file's size in bytes when it was opened.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        status = os.fstat(file.fileno())
        self.head = os.pread(file.fileno(), HEAD_BYTES, 0)
        self.size = status.st_size
        self.start: int | None = None
        self._identity = (status.st_dev, status.st_ino, self.head)

    def is_same(self, other: _Part | None) -> bool:
        """Whether ``other`` is the same file, not emptied meanwhile."""
        return other is not None and self._identity == other._identity

    def is_at(self, path: str) -> bool:
        """Whether this file is at ``path`` just now."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            return False

    def is_emptied(self) -> bool:
        """Whether another program has emptied the file; new records may follow in it."""
        return os.pread(self.file.fileno(), HEAD_BYTES, 0) != self.head

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class LogFiles:
    """The reader of a log that is written and rotated meanwhile; reads each kept record once.

    Attributes:
        gaps: how often records may have been lost before the next record that was read.

    The files are PATH, PATH.1, PATH.2, ..., where PATH is the newest. The index tells the place of
    each file in the whole log, whatever the file's name is just now. A log of an older shim has no
    index: then each file is followed by the file before it in this list.

    Args:
        path: the path of the newest file.
        is_there: whether the log at that path still belongs to the same process.
        index: the path of the log's index.
    """

    def __init__(self, path: str, is_there: Callable[[], bool], index: str = "") -> None:
        self._path = path
        self._is_there = is_there
        self._index = index
        self._name = ""
        self._part: _Part | None = None
        self._offset = 0  # in the file
        self._position: int | None = None  # in the whole log
        self._resume: Cursor | None = None  # in a log without an index
        self._begun = b""
        self._lines: deque[tuple[bytes, str]] = deque()
        self.gaps: int = 0

    def seek(self, cursor: Cursor | None) -> None:
        """Continue after a record, or from the oldest record.

        Raises:
            InvalidValue: the cursor is of another log.
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
        """Return up to ``limit`` records that weren't read yet.

        One call reads one chunk, so the call is short even in a file full of garbage: [] means
        that there may be more records.

        Returns:
            None if there are no new records now.
        """
        if not self._lines and not self._read_lines():
            return None
        taken = [self._lines.popleft() for _ in range(min(limit, len(self._lines)))]
        return [record for line in taken if (record := parse_record(*line)) is not None]

    def close(self) -> None:
        """Close the file; the next read continues with the oldest file."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def _read_lines(self) -> bool:
        """Read the next chunk, with whole lines or not; return whether there was a chunk."""
        while True:
            part = self._part
            # Look before reading: a rotated file gets no more records.
            over = part is not None and not part.is_at(self._path)
            if part is not None and self._read_chunk(part):
                return True
            if part is not None and not over and not part.is_emptied():
                return False
            try:
                following, adjacent = self._next()
            except OSError as error:
                raise_if_scarce(error)
                raise
            if following is None:
                return False
            if not self._is_there():  # look after opening: the log may have been replaced
                following.close()
                return False
            self._go_on(following, adjacent)

    def _read_chunk(self, part: _Part) -> bool:
        chunk = os.pread(part.file.fileno(), _READ_BYTES, self._offset)
        if not chunk or part.is_emptied():  # look after reading: then the chunk is valid, too
            return False
        end = self._offset
        first, *rest = chunk.split(b"\n")
        *lines, begun = [self._begun + first, *rest]
        for line, length in zip(lines, map(len, (first, *rest)), strict=False):
            end += length + 1
            if len(line) <= _LINE_BYTES:
                self._lines.append((line, self._cursor(part, end)))
        # A line may be endless garbage, such as zeros after a crash of the disk. One byte above
        # the limit is enough to know, at the line's end, that the line was too long.
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
        """Read a file from our position in the whole log, or from the file's beginning."""
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
            self._begun, missed = b"\0", True  # we are inside a line: no record begins here
        self.gaps += missed

    def _next(self) -> tuple[_Part | None, bool]:
        """Open the next file, or the oldest.

        The search goes from the newest to the oldest file. A rotation meanwhile moves files the
        same way: so the search may meet a file twice, but misses none.

        Returns:
            The file, or None if there is none. Then, if the file's place in the whole log isn't
            known, whether the file is certainly the next one.
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
        """Whether ``part`` holds or follows our position, and begins before ``best``.

        Without a position, always True: the last one found is the oldest.
        """
        if self._position is None:
            return True
        if part.start is None:
            return False
        behind = part.start >= self._position or part.start + part.size > self._position
        return behind and (best is None or best.start is None or part.start < best.start)

    def _parts(self) -> Iterator[_Part]:
        """Open the files of this log that have a first record."""
        index = self._look_up()
        if index is None:
            self._position = None
        for path in self._names():
            try:
                part = _Part(open_own(path))
            except FileNotFoundError:
                continue
            if index is None or part.head not in index.starts:
                index = self._look_up()  # the shim notes a file's start before its first record
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
        while number <= last:  # try one number more: a rotation may add a file meanwhile
            path = f"{self._path}.{number}"
            if number == last and os.path.lexists(path):
                last += 1
            yield path
            number += 1
