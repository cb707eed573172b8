"""The index of a log, and `Cursor`: a record's position in the whole log.

The shim notes in the index, a small file beside the log, at which byte of the whole log each of
the log's files begins. The time of the first record identifies a file, whatever the file's name
is just now: the shim gives no two files the same time.
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
"""How many first bytes identify a file: the time stamp of the first record."""

_NAME = re.compile(r"log1 ([0-9a-f]{16}) (\S{30}) *")
_FILE = re.compile(r"(-?\d{1,19}) (\S{30}) *")
_CURSOR = re.compile(r"([0-9a-f]{16}|[0-9a-f]{60})@(-?\d{1,19})\.([0-9a-f]{8})", re.ASCII)
_MOST_BYTES = 128 * 1024  # the index of a thousand files
_LOOKS = 10
_STRANGE = (errno.ELOOP, errno.ENXIO)  # a link; a socket


@attrs.frozen
class LogIndex:
    """What a shim has noted about a log.

    Attributes:
        name: the log's unique name.
        begun: the time when the log was begun, written as in a record.
        starts: for the time of a file's first record, at which byte of the whole log that file
            begins.
    """

    name: str
    begun: bytes
    starts: Mapping[bytes, int]

    @classmethod
    def read(cls, path: str) -> LogIndex | None:
        """Read the index; None if there is none, as for a log of an older shim.

        The shim may be writing the index just now, so two reads have to agree.
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
        """Whether a file belongs to this log, not to an earlier process with the same id."""
        return head in self.starts or head >= self.begun


@attrs.frozen
class Cursor:
    """A place in a log: the end of a record.

    Attributes:
        log: the log's name; or, if the file's start in the whole log isn't known, the file's
            first bytes in hexadecimal.
        at: the byte in the whole log, or in the file.
    """

    log: str
    at: int

    @property
    def head(self) -> bytes:
        """The file's first bytes; ``b""`` if `log` is the log's name."""
        return bytes.fromhex(self.log) if len(self.log) == 2 * HEAD_BYTES else b""

    def __str__(self) -> str:
        text = f"{self.log}@{self.at}"
        return f"{text}.{zlib.crc32(text.encode()):08x}"

    @classmethod
    def parse(cls, text: object) -> Cursor:
        """Return the cursor that ``text`` stands for.

        Raises:
            InvalidValue: ``text`` isn't a cursor.
        """
        found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if found is not None:
            cursor = cls(found[1], int(found[2]))
            if str(cursor) == text:
                return cursor
        raise InvalidValue(f"after must be the `cursor` of a record, not {text!r}")


def open_own(path: str) -> BinaryIO:
    """Open a file of a log for reading, without following a link or waiting for a fifo.

    Raises:
        FileNotFoundError: there is no file, or the file isn't a log of ours.
        OSError: the file can't be opened.
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
