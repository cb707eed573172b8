"""Forks supervising programs that a test kills: a fresh interpreter for each would take longer.

A test calls ``Forker.launch()``; ``python -m tests.crashes.forker`` is the other end. A program
keeps a diary, one JSON object per line, that the test reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import trio

from supervisor.directories._temporary import PLACE
from tests.support.leaks import STRANGERS, descendants, reap_strangers

PATIENCE_SECONDS = 30.0
"""On a busy machine a new process may wait for seconds until it runs."""


@attrs.frozen
class Program:
    """A supervising program.

    Attributes:
        pid: the program's pid.
        diary: the file with the program's diary.
    """

    pid: int
    diary: Path

    def entries(self) -> list[dict[str, Any]]:
        """Return the diary's entries so far."""
        lines = self.diary.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def said(self, what: str) -> dict[str, Any] | None:
        """Return the diary's entry of a name, or None."""
        return next((entry for entry in self.entries() if entry["what"] == what), None)

    def await_entry(self, what: str) -> dict[str, Any]:
        """Wait for the diary's entry of a name, and return the entry."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (entry := self.said(what)) is None:
            assert self.alive(), f"it died, having said {self.entries()}"
            assert time.monotonic() < deadline, f"no word of {what!r}: {self.entries()}"
            time.sleep(0.0005)
        return entry

    def alive(self) -> bool:
        """Whether the program hasn't ended, even if it is stopped."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def stop(self) -> None:
        """SIGSTOP the program, and return when the program has stopped: no entry is missed then."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        STRANGERS.update(descendants(self.pid))

    def signal(self, number: int) -> None:
        """Send the program a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> None:
        """SIGKILL the program, and return when it is gone. The processes that it launched become
        our children."""
        if self.alive():
            with contextlib.suppress(OSError):
                self.stop()
            self.signal(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while os.path.exists(f"/proc/{self.pid}"):
            assert time.monotonic() < deadline, f"{self.pid} doesn't end"
            time.sleep(0.0005)
        reap_strangers()


class Forker:
    """The process that forks programs, from the outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextlib.contextmanager
    def launch(cls) -> Iterator[Forker]:
        """Have a forker for the time of the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.forker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent.parent,
            text=True,
        )
        try:
            yield cls(process)
        finally:
            process.communicate(timeout=PATIENCE_SECONDS)

    @contextlib.contextmanager
    def program(self, play: str, workdir: Path, **told: Any) -> Iterator[Program]:
        """Run a program; SIGKILL it at the end of the block if it is still there.

        Args:
            play: the name of a coroutine function in `tests.crashes.plays`.
            workdir: the directory of the diary and the program's temporary files.
            told: the arguments of the play.
        """
        diary = Path(tempfile.mkdtemp(prefix="diary-", dir=workdir)) / "diary"
        diary.touch()
        assert self._process.stdin is not None and self._process.stdout is not None
        told |= {"play": play, "diary": str(diary), "temporary": str(workdir)}
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        program = Program(int(self._process.stdout.readline()), diary)
        try:
            yield program
        finally:
            program.end()


# ---- the other end ------------------------------------------------------------------------


def _reap(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _play(told: dict[str, Any]) -> None:
    """Run as a program."""
    from tests.crashes import plays  # noqa: PLC0415 - it imports this module's user

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    tempfile.tempdir = told["temporary"]
    os.environ["TMPDIR"] = os.environ[PLACE] = told["temporary"]
    trio.run(getattr(plays, told["play"]), told)


def main() -> None:
    """Fork a program for each line, and answer with the program's pid."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some die of SIGSEGV
    from tests.crashes import plays  # noqa: F401, PLC0415 - so that no program has to

    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's signals: the test ends us
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _play(json.loads(line))
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
