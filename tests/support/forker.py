"""Programs that a test runs, and kills: forked by a process that has imported what they need.

A fresh interpreter for each program would take half a second. The fixture `forker` is the process
that forks, one for all tests of a process; `tests.support.forked` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.directories._temporary import PLACE
from tests.support.leaks import STRANGERS, descendants, reap_strangers, wait_for

PATIENCE_SECONDS = 30.0
"""On a busy machine a new process may wait for seconds until it runs."""


@attrs.frozen
class Program:
    """A program.

    Attributes:
        pid: the program's pid.
        place: a directory for the program's output; removed at the end.
    """

    pid: int
    place: Path

    # ---- what the program says ------------------------------------------------------------

    @property
    def output(self) -> str:
        """What the program has written to standard output."""
        return self._text("out")

    @property
    def complaints(self) -> str:
        """What the program has written to standard error."""
        return self._text("err")

    def _text(self, name: str) -> str:
        try:
            return (self.place / name).read_text()
        except FileNotFoundError:  # it hasn't begun
            return ""

    def await_line(self, line: str) -> None:
        """Wait until the program has written a line."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while line not in self.output.split("\n")[:-1]:
            assert self.alive(), f"it died, having said {self.output!r} {self.complaints!r}"
            assert time.monotonic() < deadline, f"no {line!r}: {self.output!r} {self.complaints!r}"
            time.sleep(0.0005)

    @property
    def diary(self) -> Path:
        """The file with the program's diary: a JSON object in each line."""
        return self.place / "diary"

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

    # ---- its life ---------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the program hasn't ended, even if it is stopped."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def wait(self, seconds: float) -> int:
        """Wait for the end; return the code, or the negative number of a signal."""
        status = self.place / "status"
        wait_for(status.exists, f"the end of a program: {self.complaints}", seconds)
        return int(status.read_text())

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
        wait_for((self.place / "status").exists, f"the end of {self.pid}", PATIENCE_SECONDS)
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
            [sys.executable, "-m", "tests.support.forked"],
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
    def program(
        self, call: str, told: Mapping[str, Any], *, temporary: Path | None = None
    ) -> Iterator[Program]:
        """Run a program; SIGKILL it at the end of the block if it is still there.

        Args:
            call: what it runs: ``MODULE:FUNCTION``, a coroutine function or an ordinary one.
            told: the function's argument; ``diary`` is the diary's path, if this has no other.
            temporary: the directory for the program's temporary files; None: ours.
        """
        place = Path(tempfile.mkdtemp(prefix="ts-program-"))
        names = () if temporary is None else ("TMPDIR", PLACE)
        try:
            (place / "diary").touch()
            message = {
                "call": call,
                "place": str(place),
                "environ": {**os.environ, **dict.fromkeys(names, str(temporary))},
                "told": {"diary": str(place / "diary"), **told},
            }
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            program = Program(int(self._process.stdout.readline()), place)
            try:
                yield program
            finally:
                program.end()
                sys.stderr.write(program.complaints)
        finally:
            shutil.rmtree(place)


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """The process that forks programs."""
    with Forker.launch() as forker:
        yield forker
