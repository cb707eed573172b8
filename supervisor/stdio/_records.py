"""Records of a log in the CRI format, and a log's files in their order.

Source: kubernetes/design-proposals-archive, kubelet-cri-logging.md.
"""

from __future__ import annotations

import calendar
import contextlib
import errno
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import attrs

from .._errors import scarcity
from ..state import distrust, lifted

_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z (stdout|stderr) ([PF])(?::\S*)? (.*)",
    re.DOTALL,
)
_READ_BYTES = 256 * 1024
_LINE_BYTES = 64 * 1024  # a shim's hold 16 KiB and some words
_TRIES = 10
_STRANGE = (errno.ELOOP, errno.ENXIO)  # a link; a socket


@attrs.frozen
class LogRecord:
    """One record of a log: a line, or a part of one.

    Attributes:
        at_ns: when it was written, CLOCK_REALTIME in nanoseconds.
        stream: ``"stdout"`` or ``"stderr"``.
        partial: whether the line goes on in the stream's next record, or was never ended.
        data: what the program wrote, without a newline.
    """

    at_ns: int
    stream: str
    partial: bool
    data: bytes

    @property
    def at(self) -> datetime:
        """When it was written, in UTC (microseconds; ``at_ns`` has the rest)."""
        return datetime.fromtimestamp(self.at_ns / 1e9, UTC)

    @property
    def written(self) -> bytes:
        """The very bytes that the program wrote: with the newline, if it is no part."""
        return self.data if self.partial else self.data + b"\n"


def parse_record(line: bytes) -> LogRecord | None:
    """Return the record in a line of a log, or None for something else.

    Args:
        line: without its newline.
    """
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    stamp, fraction, stream, tag, data = found.groups()
    try:
        seconds = calendar.timegm(time.strptime(stamp.decode(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
    at_ns = seconds * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
    return LogRecord(at_ns, stream.decode(), tag == b"P", data)


class LogFiles:
    """Reads a log that is written and rotated meanwhile: every record that is kept, once.

    Attributes:
        gaps: how often rotation had removed the file that was being read before the next one was
            begun: those between them, if any, weren't read.

    The files are PATH, PATH.1, PATH.2, ..., PATH being the newest. A file is known by its inode,
    whatever it is called just now.

    Args:
        path: the newest.
        is_there: whether what is at that path is still the log that is meant.
    """

    def __init__(self, path: str, is_there: Callable[[], bool]) -> None:
        self._path = path
        self._is_there = is_there
        self._file: BinaryIO | None = None
        self._begun = b""
        self._lines: deque[bytes] = deque()
        self.gaps: int = 0

    def read(self, limit: int) -> list[LogRecord] | None:
        """Return up to ``limit`` of those that are there and weren't read yet.

        It takes a moment, however much isn't a record: [] means that there may be more.

        Returns:
            None if there are none now.
        """
        if not self._lines and not self._read_lines():
            return None
        taken = [self._lines.popleft() for _ in range(min(limit, len(self._lines)))]
        return [record for line in taken if (record := parse_record(line)) is not None]

    def close(self) -> None:
        """Close the file; reading goes on with the oldest."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_lines(self) -> bool:
        """Read the next chunk, whole lines or not; say whether there was any."""
        while True:
            over = self._file is not None and self._is_rotated()
            # Asked first: what a rotated file holds now is all that it ever will.
            if self._file is not None and self._read_chunk(self._file):
                return True
            if self._file is not None and not over:
                return False
            following, adjacent = self._next_undisturbed()
            if following is None:
                return False
            if not self._is_there():  # asked last: it may have been replaced meanwhile
                following.close()
                return False
            self.gaps += self._file is not None and not adjacent
            self.close()
            self._file, self._begun = following, b""

    def _read_chunk(self, file: BinaryIO) -> bool:
        chunk = file.read(_READ_BYTES)
        *lines, begun = (self._begun + chunk).split(b"\n")
        self._lines.extend(line for line in lines if len(line) <= _LINE_BYTES)
        # Of what is no record, such as the zeros that a crashed disk has left, only so much is
        # kept that its end is known to be the end of something too long.
        self._begun = begun[: _LINE_BYTES + 1]
        return bool(chunk)

    def _is_rotated(self) -> bool:
        assert self._file is not None
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    def _next_undisturbed(self) -> tuple[BinaryIO | None, bool]:
        """Do as `_next`, and again if it was rotated meanwhile: two rotations could mislead it."""
        for _ in range(_TRIES):
            newest = _inode(self._path)
            following, adjacent = self._next()
            if _inode(self._path) == newest:
                return following, adjacent
            if following is not None:
                following.close()
        following, _ = self._next()
        return following, False

    def _next(self) -> tuple[BinaryIO | None, bool]:
        """Open the file that follows the one that is open, or the oldest.

        From the newest to the oldest: a rotation meanwhile moves files the same way, so that one
        may be met twice, but none is missed.

        Returns:
            The file, or None if there is none; and whether the open one is still there.
        """
        current = None if self._file is None else os.fstat(self._file.fileno())
        following: BinaryIO | None = None
        seen: set[int] = set()
        try:
            for path in self._names():
                try:
                    file = open_own(path)
                except FileNotFoundError:
                    continue
                status = os.fstat(file.fileno())
                if current is not None and os.path.samestat(status, current):
                    file.close()
                    return following, True
                if status.st_ino in seen:
                    file.close()
                    continue
                seen.add(status.st_ino)
                if following is not None:
                    following.close()
                following = file
        except OSError as error:
            if following is not None:
                following.close()
            raise scarcity(error) from error
        return following, False

    def _names(self) -> Iterator[str]:
        yield self._path
        directory, name = os.path.split(self._path)
        numbers = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(directory):
                suffix = entry.removeprefix(f"{name}.")
                if suffix != entry and suffix.isdecimal():
                    numbers.append(int(suffix))
        # One more than there are: a rotation may add it while we look.
        for number in range(1, max(numbers, default=0) + 2):
            yield f"{self._path}.{number}"


def open_own(path: str) -> BinaryIO:
    """Open a log for reading: nobody else's, no link's target, nor a fifo, which would wait.

    Raises:
        FileNotFoundError: there is none, or what is there isn't a log of ours.
        OSError: it can't be opened.
    """
    return open(path, "rb", buffering=0, opener=_opened)


def _opened(path: str, flags: int) -> int:
    try:
        fd = lifted(os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in _STRANGE:
            raise FileNotFoundError(errno.ENOENT, "not a log of ours", path) from error
        raise
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and distrust(status) is None:
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "not a log of ours", path)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None
