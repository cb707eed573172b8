"""A shim that is watched from its launch to its end while one of its system calls fails."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import attrs

import supervisor.native
from tests.native.logs import Log, joined, parse
from tests.native.programs import PARTS, Programs, shipped
from tests.native.rig import Rig, children, read_to_end, readable
from tests.native.terminals import Client, console
from tests.support.leaks import wait_for

SECONDS = 10.0


@attrs.frozen
class Tools:
    """The programs that a play needs.

    Attributes:
        strace: injects the errors.
        runtime: the runtime of shim_runtime.c.
        closing: a shim whose `close` fails as FAIL_CLOSE says.
    """

    strace: str
    runtime: Path
    closing: Path

    @classmethod
    def make(cls, directory: Path) -> Tools:
        """Compile them.

        Raises:
            Missing: a tool isn't installed.
        """
        strace, compiler = shutil.which("strace"), shutil.which("gcc")
        if strace is None or compiler is None:
            raise Missing("strace and gcc are needed (apt-get install strace gcc libc6-dev)")
        here = Path(__file__).parent
        runtime, closing = directory / "runtime", directory / "closing"
        compile_c(compiler, runtime, here / "shim_runtime.c", "-O1")
        parts = [sources() / f"{part}.c" for part in PARTS["shim"]]
        compile_c(compiler, closing, here / "shim_close.c", *parts, "-Wl,--wrap=close")
        return cls(strace, runtime, closing)


class Missing(Exception):
    """A tool isn't there."""


def sources() -> Path:
    """Return the directory of the shim's sources."""
    for entry in supervisor.native.__path__:
        if (Path(entry) / "shim.c").exists():
            return Path(entry)
    raise Missing("the shim's sources aren't here")


def compile_c(compiler: str, output: Path, *words: str | Path) -> None:
    """Compile C sources with the shim's own flags."""
    flags = f"@{sources() / 'compile_flags.txt'}"
    command = [compiler, flags, "-I", str(sources()), *map(str, words), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@attrs.frozen
class Fault:
    """One call that fails: the ``number``-th of its name, from 1 on.

    Attributes:
        onwards: all later calls of the name fail, too.
    """

    call: str
    error: str
    number: int
    onwards: bool = False

    @property
    def injection(self) -> str:
        """The fault in strace's words."""
        when = f"{self.number}+" if self.onwards else f"{self.number}"
        return f"inject={self.call}:error={self.error}:when={when}"


@attrs.frozen
class Told:
    """What a shim did.

    Attributes:
        outcome: ``goes on``, ``reports PHASE``, or ``no such call``.
        wrong: what the shim should not have done.
    """

    outcome: str
    wrong: list[str]


class Player(Rig):
    """A shim of one kind, with at most one fault, from launch to end."""

    def __init__(self, tools: Tools, path: Path, kind: str, fault: Fault | None = None) -> None:
        super().__init__(Programs("", "", "", ""), path)
        self.tools, self.kind, self.fault = tools, kind, fault
        self.traced = fault is None or fault.call != "close"
        self._shim_pid: int | None = None
        for name in ("gate", "life"):
            os.mkfifo(self / name)
        self._gate = self.open("gate", os.O_RDWR)
        self._life = self.open("life", os.O_RDONLY | os.O_NONBLOCK)
        self._log: Log | None = None
        self._output = b""

    # ---- the shim -----------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The shim's pid, not strace's."""
        assert self.shim is not None
        if self._shim_pid is None:
            self._shim_pid = children(self.shim.pid)[0] if self.traced else self.shim.pid
        return self._shim_pid

    @property
    def trace(self) -> Path:
        """The file that strace writes."""
        return Path(f"{self.path}.trace")

    def _begin(self) -> None:
        options = self._options()
        with contextlib.ExitStack() as stack:
            fds = []
            if self.kind == "terminal":
                fds = [stack.enter_context(console(self)).fileno()]
                options += ["--terminal", str(fds[0])]
            environment = dict(os.environ)
            if self.traced:
                program = shipped().shim
            else:
                assert self.fault is not None
                number = getattr(errno, self.fault.error)
                environment["FAIL_CLOSE"] = f"{self.fault.number} {number}"
                program = str(self.tools.closing)
            command = [program, "--directory", str(self.path), *options, "--"]
            command += [str(self.tools.runtime), self.kind]
            self.launch_words([*self._strace(), *command], pass_fds=fds, env=environment)

    def _strace(self) -> list[str]:
        if not self.traced:
            return []
        words = [self.tools.strace, "-o", str(self.trace), "-e", "signal=none"]
        if self.fault is not None:
            words += ["-e", f"trace={self.fault.call}", "-e", self.fault.injection]
        return words

    def _options(self) -> list[str]:
        if self.kind in {"fifo", "refused"}:
            names = ("stdin", "stdout", "stderr")
            return [word for name in names for word in (f"--{name}", self.fifo(name))]
        if self.kind == "log":
            self._log = Log(self, max_bytes=16 * 1024 + 64, files=3)
            self._log.path.write_bytes(b"2026-01-31T12:34:56.123456789Z stdout F old\n2026-01")
            return self._log.options("stdout", "stderr")
        return []

    # ---- the play -----------------------------------------------------------------------

    def play(self) -> Told:
        """Play the shim's whole life."""
        wrong: list[str] = []
        outcome = ""
        try:
            self._begin()
            outcome = self._play(wrong)
        except AssertionError as error:
            wrong.append(f"hangs: {error}")
        finally:
            self.close()
        if self.fault is not None and self.traced and "INJECTED" not in self.trace.read_text():
            outcome = "no such call"
        return Told(outcome, wrong)

    def _play(self, wrong: list[str]) -> str:
        assert self.shim is not None and self.shim.stdout is not None
        line = read_to_end(self.shim.stdout.fileno())
        if b'"error"' in line:
            return self._check_refused(line, wrong)
        if b'"pid"' not in line:
            wrong.append(f"no report: {line!r}")
            return "says nothing"
        self._live()
        self._check_end(wrong)
        return "goes on"

    def _check_refused(self, line: bytes, wrong: list[str]) -> str:
        found = re.search(rb'"phase": "([a-z]+)"', line)
        assert found is not None
        phase = found.group(1).decode()
        self._gone(1, wrong)
        return "goes on" if (self.kind, phase) == ("refused", "runtime") else f"reports `{phase}`"

    def _gone(self, status: int, wrong: list[str]) -> None:
        assert self.shim is not None
        try:
            found = self.shim.wait(SECONDS)
        except subprocess.TimeoutExpired:
            wrong.append("the shim stays")
            return
        if found != status:
            wrong.append(f"the shim exited with {found}")
        if read_to_end_soon(self._life):
            wrong.append("something is left alive")

    def _over(self) -> bool:
        assert self.shim is not None
        return self.shim.poll() is not None

    def _wait_quiet(self) -> None:
        """Return when the shim waits for something, with nothing to read, or has ended."""
        control = self.open("control", os.O_RDWR | os.O_NONBLOCK)

        def quiet() -> bool:
            try:
                return self._over() or (not readable(control) and self.waiting())
            except (OSError, IndexError):
                return False  # the process ends just now

        wait_for(quiet, "a quiet shim", SECONDS)
        self.drop(control)

    def _live(self) -> None:
        self._wait_quiet()
        control = self.open("control", os.O_RDWR | os.O_NONBLOCK)
        os.write(control, b"1 100 30\n2 18 0\n" if self.kind == "terminal" else b"2 18 0\n0 0 0\n")
        self._wait_quiet()
        if self.kind == "terminal":
            self._output = self._attach()
            return
        os.write(self._gate, b"\n")
        self.wait_end()
        self._wait_quiet()
        if self.kind == "fifo":
            for name in ("stdout", "stderr"):
                self._output += read_to_end(self.open(name, os.O_RDONLY | os.O_NONBLOCK))
                self._wait_quiet()

    def _attach(self) -> bytes:
        """Return the terminal's output; a client that is detached attaches again."""
        output, deadline = b"", time.monotonic() + SECONDS
        first = True
        while not self._over():
            assert time.monotonic() < deadline, "the terminal never ended"
            try:
                with Client(self) as client:
                    assert client.header
                    if first:
                        client.send(b"x")
                        self._wait_quiet()
                        os.write(self._gate, b"\n")
                        first = False
                    output += client.rest()
            except (TimeoutError, ConnectionError, FileNotFoundError):
                continue
            except AssertionError as error:
                if str(error) != "no header came":
                    raise
        if first:
            raise AssertionError("nobody could attach")
        return output

    def _check_end(self, wrong: list[str]) -> None:
        self._gone(0, wrong)
        status = (self / "exitStatus").read_bytes()
        recorded = self.recorded()[:2] if status.strip() else None
        says = " ".join(str(entry["msg"]) for entry in self.log())
        never = self.fault is not None and self.fault.onwards
        if recorded != (7, 0) and not (never and recorded is None and "cannot record 7 0" in says):
            wrong.append(f"exitStatus holds {recorded}")
        if self.kind in {"fifo", "terminal"}:
            wanted = b"words\nmore"
            if self._output != wanted:
                wrong.append(f"output was lost: {self._output!r}")
        if self._log is not None:
            self._check_log(self._log, says, wrong)

    def _check_log(self, log: Log, says: str, wrong: list[str]) -> None:
        data = b"".join(path.read_bytes() for path in log.files)
        try:
            records = parse(data)
        except AssertionError as error:
            wrong.append(f"the log holds something else: {error}")
            return
        whole = (joined(records), joined(records, "stderr"))
        if whole != (b"old\n" + (b"x" * 10000 + b"\n") * 2, b"more") and "log" not in says:
            wrong.append(f"the log lacks something: {[len(part) for part in whole]}")

    def close(self) -> None:
        """End the shim and its children."""
        if self.shim is not None and self.shim.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                for pid in [*children(self.pid), self.pid]:
                    os.kill(pid, signal.SIGKILL)
            try:
                self.shim.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.shim.kill()
                self.shim.wait()
        super().close()


def read_to_end_soon(fd: int) -> bool:
    """Whether a fifo's end doesn't come."""
    try:
        read_to_end(fd)
    except AssertionError:
        return True
    return False
