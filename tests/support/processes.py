"""Other Python processes, which hold locks or fork or write, and talk over pipes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import supervisor

PARENT = os.path.dirname(os.path.dirname(os.path.abspath(supervisor.__file__)))


@contextlib.contextmanager
def python(
    script: str, *args: str, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run a script; kill the script at the end, if still running."""
    path = os.pathsep.join(filter(None, [PARENT, os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-c", script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(stream: IO[str] | None) -> str:
    """Return the next line that a process writes, "" if the process ends."""
    assert stream is not None
    return stream.readline().strip()


HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock on the file at ``path``, without our code."""
    with python(HOLD, path) as process:
        assert line(process.stdout) == "held"
        yield process


def status_of(pid: int) -> dict[str, str]:
    """Return /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
