"""A hostile program, and the caller's files that the program gets as streams."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Any

from supervisor import Fifo

HOSTILE = r"""
import fcntl, os, sys
def attempt(what, *arguments, **named):
    try:
        what(*arguments, **named)
    except OSError:
        pass
for fd in (0, 1, 2):
    path = f"/proc/self/fd/{fd}"
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_DIRECTORY):
        try:
            new = os.open(path, flags | os.O_NONBLOCK)
        except OSError:
            continue
        attempt(os.ftruncate, new, 0)
        attempt(os.pwrite, new, b"forged", 0)
    attempt(os.fchmod, fd, 0o6777)
    attempt(os.fchown, fd, 1234, 1234)
    attempt(os.ftruncate, fd, 0)
    attempt(os.setxattr, path, "user.x", b"y")
    attempt(os.setxattr, path, "trusted.x", b"y")
    attempt(os.utime, path, (1, 1))
    attempt(os.truncate, path, 0)
    attempt(os.link, path, f"/tmp/link{fd}", follow_symlinks=True)
    for flags in (os.O_NONBLOCK, os.O_APPEND, 0):
        attempt(fcntl.fcntl, fd, fcntl.F_SETFL, flags)
    attempt(fcntl.fcntl, fd, 1031, 4096)  # F_SETPIPE_SZ
    attempt(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    attempt(os.lseek, fd, 0, os.SEEK_SET)
    attempt(os.listdir, path)
    attempt(fcntl.fcntl, fd, fcntl.F_SETFL, os.O_RDWR)
os._exit(7)
"""


PYTHON = "/usr/bin/python3"


STREAMS = ("stdin", "stdout", "stderr")


KINDS = ("path", "file", "pipe", "socket", "fifo", "device")


class Door:
    """A file, pipe or device of the caller that is given as a stream, and must stay unchanged."""

    def __init__(self, kind: str, stream: str, place: Path) -> None:
        self.kind, self.place = kind, place / f"{stream}-{kind}"
        self.closing: list[int] = []
        reading = stream == "stdin"
        self.fd = -1
        if kind in ("path", "file"):
            self.place.write_bytes(b"original\n")
            self.place.chmod(0o640)
            flags = os.O_RDONLY if reading else os.O_WRONLY | os.O_APPEND
            self.fd = self._keep(os.open(self.place, flags))
        elif kind == "pipe":
            ends = [self._keep(fd) for fd in os.pipe()]
            self.fd = ends[0] if reading else ends[1]
        elif kind == "socket":
            ours, theirs = socket.socketpair()
            self._keep(ours.detach())
            self.fd = self._keep(theirs.detach())
        elif kind == "fifo":
            os.mkfifo(self.place, 0o640)
            self.fd = self._keep(os.open(self.place, os.O_RDWR))
        else:
            os.mknod(self.place, 0o640 | stat.S_IFCHR, os.makedev(1, 3))
            self.fd = self._keep(os.open(self.place, os.O_RDONLY if reading else os.O_WRONLY))
        self.before = self.look()

    def _keep(self, fd: int) -> int:
        self.closing.append(fd)
        return fd

    @property
    def given(self) -> Any:
        """The argument for the library."""
        named = {"path": str(self.place), "fifo": Fifo(str(self.place))}
        return named.get(self.kind, self.fd)

    def look(self) -> dict[str, object]:
        """Return all properties that the container must not change."""
        status = os.fstat(self.fd)
        found: dict[str, object] = {
            "mode": status.st_mode,
            "owner": (status.st_uid, status.st_gid),
            "flags": fcntl.fcntl(self.fd, fcntl.F_GETFL),
            "modified": status.st_mtime_ns if self.kind in ("path", "file") else None,
        }
        if self.kind in ("path", "file"):
            found["content"] = self.place.read_bytes()
            found["attributes"] = os.listxattr(self.place)
        if self.kind in ("pipe", "fifo"):
            found["size"] = fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ)
        return found

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.closing:
            os.close(fd)
