"""A leash, as a supervisor holds one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest


class Leash:
    """A pipe that we hold, and a process that stands for the supervisor.

    Attributes:
        fds: what a shim or keeper has to inherit: the pipe's reading end and the pidfd.
    """

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL)
        self._read_fd, self._write_fd = os.pipe()
        self._pidfd = os.pidfd_open(self._holder.pid)
        self.fds = (self._read_fd, self._pidfd)

    def __str__(self) -> str:
        return f"{self._read_fd}:{self._pidfd}"

    def let_go(self) -> None:
        """Close the pipe; the process lives on."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def write(self, data: bytes) -> None:
        """Write to the pipe, as no supervisor does."""
        os.write(self._write_fd, data)

    def kill(self) -> None:
        """Kill the process that holds the leash; the pipe stays open, as if a forked child held the
        pipe."""
        self._holder.kill()
        self._holder.wait()

    def close(self) -> None:
        """Close everything."""
        self.let_go()
        self.kill()
        os.close(self._read_fd)
        os.close(self._pidfd)


Break = Callable[[Leash], None]

breaks = pytest.mark.parametrize(
    "end", [Leash.let_go, Leash.kill], ids=["the pipe is closed", "the supervisor is killed"]
)
