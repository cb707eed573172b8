"""A log under test: the log's files and records."""

from __future__ import annotations

import calendar
import contextlib
import itertools
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from tests.native.rig import SLEEP, Rig, Word, runtime, shell, unread

CONTENT_MAX = 16 * 1024
LEAST_BYTES = CONTENT_MAX + 64
"""The smallest MAX_BYTES: the longest record fits in a file."""

_RECORD = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr) ([FP]) ([^\n]*)\n", re.DOTALL
)


@attrs.frozen
class Record:
    """One record: the time, the stream, and the bytes that the record stands for."""

    at_ns: int
    stream: str
    tag: str
    written: bytes


def parse(data: bytes) -> list[Record]:
    """Return the records of a file, which must hold nothing else."""
    records = []
    for line in split(data):
        found = _RECORD.fullmatch(line)
        assert found, line[:200]
        second, fraction, stream, tag, content = found.groups()
        assert len(content) <= CONTENT_MAX
        at = calendar.timegm(time.strptime(second.decode(), "%Y-%m-%dT%H:%M:%S"))
        written = content + b"\n" * (tag == b"F")
        records.append(Record(at * 10**9 + int(fraction), stream.decode(), tag.decode(), written))
    return records


def split(data: bytes) -> list[bytes]:
    """Split lines at newlines alone, keeping them."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + [rest] * bool(rest)


def joined(records: Iterable[Record], stream: str = "stdout") -> bytes:
    """Return what was written to a stream."""
    return b"".join(record.written for record in records if record.stream == stream)


class Log:
    """The log of a rig's process.

    Attributes:
        path: the newest file of the log.
    """

    def __init__(self, rig: Rig, path: Path | None = None, *, max_bytes: int, files: int) -> None:
        self.rig = rig
        self.path = path or rig / "output.log"
        self._bounds = f"{max_bytes}:{files}"

    def options(self, *streams: str) -> list[str]:
        """Return the options that log these streams; the fifos are made."""
        words = ["--log", f"{self._bounds}:{self.path}"]
        for stream in streams or ("stdout",):
            self.rig.fifo(stream)
            words += [f"--{stream}", f"log:{self.rig / stream}"]
        return words

    @property
    def files(self) -> list[Path]:
        """The files that there are, from the oldest to the newest."""
        numbers = [
            int(path.suffix[1:])
            for path in self.path.parent.glob(f"{self.path.name}.*")
            if path.is_file()
        ]
        rotated = [Path(f"{self.path}.{number}") for number in sorted(numbers, reverse=True)]
        return [*rotated, *([self.path] if self.path.exists() else [])]

    def records(self) -> list[Record]:
        """Return all records, in their order."""
        return [record for path in self.files for record in parse(path.read_bytes())]

    def text(self, stream: str = "stdout") -> bytes:
        """Return what was written to a stream, as far as the log has whole records of that."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # the shim rotates the file just now
                data = b"".join(path.read_bytes() for path in self.files)
                return joined(parse(data[: data.rfind(b"\n") + 1]), stream)

    def writer(self, stream: str = "stdout") -> int:
        """Open a stream for writing, as another process of the container may."""
        return self.rig.open(stream, os.O_WRONLY)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, waiting for room."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


MUCH = 1 << 26


RECORD = b"2026-01-31T12:34:56.123456789Z stdout F before\n"


def writing(*pieces: tuple[int, bytes]) -> list[Word]:
    """Return a process that writes each of these pieces to the piece's descriptor."""
    script = """
import json, os, sys
for fd, text in json.load(open(sys.argv[1])):
    rest = text.encode("latin-1")
    while rest:
        rest = rest[os.write(fd, rest):]
"""
    Path("pieces").write_text(json.dumps([(fd, data.decode("latin-1")) for fd, data in pieces]))
    return [sys.executable, "-ISc", script, os.path.abspath("pieces")]


def sleeping(rig: Rig, log: Log, *streams: str) -> int:
    """Launch a process that writes nothing, so that the test can write; return the process's
    pid."""
    rig.launch(runtime(*SLEEP), *log.options(*streams))
    return rig.running()


def finish(rig: Rig) -> None:
    """End the process, and wait until the shim has gone: the log is complete."""
    rig.control("2 9 0\n")
    assert rig.end() == (137, 9)


def drained(rig: Rig, fd: int) -> Callable[[], bool]:
    """Return a condition: the shim has taken all that was written, and waits."""
    return lambda: unread(fd) == 0 and rig.waiting()


def finish_writers(rig: Rig, *fds: int) -> None:
    """Close these, and end the process."""
    for fd in fds:
        rig.drop(fd)
    finish(rig)


def lines_of(chance: random.Random, most_bytes: int) -> Iterator[bytes]:
    """Yield numbered lines without end."""
    for number in itertools.count():
        yield b"%d %s\n" % (number, b"x" * chance.randrange(most_bytes))


def launch_traced(rig: Rig, script: str, log: Log, *inject: str) -> None:
    """Launch a shim with a log, some of whose system calls say something else."""
    words = ["strace", "-D", "-o", "/dev/null", *inject, rig.programs.shim]
    words += ["--directory", str(rig.path), *log.options(), "--"]
    rig.launch_words([*words, *runtime(*shell(script))])
