"""Where a record stands in all that was ever written to its log.

A shim notes, in a small file beside the log, at which byte of the whole each of the log's files
begins. A file is known by the time of its first record, whatever it is called just now: that is
the shim's word, and no two have the same.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Final

import attrs

from ..system import distrust, lifted
from ..values import InvalidValue

HEAD_BYTES: Final = 30
"""How much of a file's beginning tells it from others: a shim's time stamp."""

_NAME = re.compile(r"log1 ([0-9a-f]{16}) (\S{30}) *")
_FILE = re.compile(r"(-?\d{1,19}) (\S{30}) *")
_CURSOR = re.compile(r"([0-9a-f]{16}|[0-9a-f]{60})@(-?\d{1,19})\.([0-9a-f]{8})", re.ASCII)
_MOST_BYTES = 128 * 1024  # of a thousand files
_LOOKS = 10
_STRANGE = (errno.ELOOP, errno.ENXIO)  # a link; a socket


@attrs.frozen
class LogIndex:
    """What a shim has noted of a log.

    Attributes:
        name: the log's own, which no other has.
        begun: when it was begun, as its records tell times.
        starts: at which byte of the whole the file with this first record's time begins.
    """

    name: str
    begun: bytes
    starts: Mapping[bytes, int]

    @classmethod
    def read(cls, path: str) -> LogIndex | None:
        """Read it; None if there is none: an older shim's log has none.

        It may just be written, so two looks have to agree.
        """
        try:
            with open_own(path) as file:
                text = os.pread(file.fileno(), _MOST_BYTES, 0)
                for _ in range(_LOOKS):
                    before, text = text, os.pread(file.fileno(), _MOST_BYTES, 0)
                    if text == before:
                        break
        except FileNotFoundError:
            return None
        first, *lines = text.decode("ascii", "replace").split("\n")
        name = _NAME.fullmatch(first)
        if name is None:
            return None
        files = [found for line in lines if (found := _FILE.fullmatch(line)) is not None]
        starts = {found[2].encode(): int(found[1]) for found in files}
        return cls(name[1], name[2].encode(), starts)

    def holds(self, head: bytes) -> bool:
        """Whether a file is this log's, not one of an earlier process of the same id."""
        return head in self.starts or head >= self.begun


@attrs.frozen
class Cursor:
    """A place in a log: the end of a record.

    Attributes:
        log: the log's name; or, where nobody knows at which byte of the whole a file begins, the
            file's beginning, in hexadecimal.
        at: the byte of the whole, or of the file.
    """

    log: str
    at: int

    @property
    def head(self) -> bytes:
        """The file's beginning, or nothing where the log's name does."""
        return bytes.fromhex(self.log) if len(self.log) == 2 * HEAD_BYTES else b""

    def __str__(self) -> str:
        text = f"{self.log}@{self.at}"
        return f"{text}.{zlib.crc32(text.encode()):08x}"

    @classmethod
    def parse(cls, text: object) -> Cursor:
        """Return the cursor that was written so.

        Raises:
            InvalidValue: it is none.
        """
        found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if found is not None:
            cursor = cls(found[1], int(found[2]))
            if str(cursor) == text:
                return cursor
        raise InvalidValue(f"after must be the `cursor` of a record, not {text!r}")


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
