"""The shim under fire: each of its system calls fails, and what becomes of it.

``python -m tests.native.shim_faults`` writes the table in docs/shim-faults.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

import supervisor.native
from tests.native.logs import Log, joined, parse
from tests.native.programs import PARTS, Programs, shipped
from tests.native.rig import Rig, children, read_to_end, readable
from tests.native.terminals import Client, console
from tests.support.leaks import wait_for

PAGE = Path(__file__).parents[2] / "docs/shim-faults.md"
KINDS = ("plain", "fifo", "log", "terminal", "refused")
ERRORS = ("EMFILE", "ENFILE", "ENOSPC", "ENOMEM", "EINTR", "EIO", "EAGAIN")
SECONDS = 10.0
AT_ONCE = 2

CAN_FAIL = {
    "accept4": "EMFILE ENFILE ENOMEM EINTR EAGAIN",
    "bind": "ENOMEM",
    "chdir": "ENOMEM EIO",
    "chmod": "ENOMEM EIO",
    "close": "ENOSPC EINTR EIO",
    "close_range": "EMFILE ENOMEM",
    "dup2": "EMFILE ENOMEM EINTR",
    "fchmod": "EIO",
    "fcntl": "EMFILE",
    "flock": "EINTR",
    "fstat": "ENOMEM",
    "ftruncate": "EINTR EIO",
    "inotify_add_watch": "ENOSPC ENOMEM",
    "inotify_init1": "EMFILE ENOMEM",
    "lstat": "ENOMEM EIO",
    "open": "EMFILE ENFILE ENOSPC ENOMEM EINTR EIO EAGAIN",
    "poll": "ENOMEM EINTR",
    "pread64": "EINTR EIO EAGAIN",
    "pwrite64": "ENOSPC EINTR EIO EAGAIN",
    "read": "EINTR EIO EAGAIN",
    "recvmsg": "ENOMEM EINTR EAGAIN",
    "rename": "ENOSPC ENOMEM",
    "sendto": "ENOMEM EINTR EAGAIN",
    "signalfd4": "EMFILE ENFILE ENOMEM",
    "socket": "EMFILE ENFILE ENOMEM",
    "unlink": "ENOMEM EIO",
    "vfork": "ENOMEM EAGAIN",
    "wait4": "EINTR",
    "waitid": "EINTR",
    "write": "ENOSPC EINTR EIO EAGAIN",
}
"""Which of the errors a call can return, as section 2 of the manual has it, for what the shim asks
of it (fcntl: F_DUPFD_CLOEXEC). EIO of open isn't there, but it is what a bad disk says."""

CANNOT_FAIL = {
    "arch_prctl",
    "execve",
    "exit_group",
    "geteuid",
    "getpid",
    "getppid",
    "ioctl",
    "kill",
    "listen",
    "prctl",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_tid_address",
    "shutdown",
    "umask",
}
"""What can return none of them. `execve` is the launcher's."""

OTHER_NAMES = {
    "fchmodat": "chmod",
    "dup3": "dup2",
    "newfstatat": "fstat",
    "openat": "open",
    "ppoll": "poll",
    "pwritev2": "pwrite64",
    "renameat": "rename",
    "renameat2": "rename",
    "unlinkat": "unlink",
    "clone": "vfork",
}
"""What other machines and C libraries call in their place."""


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
        onwards: all that come behind it fail, too.
    """

    call: str
    error: str
    number: int
    onwards: bool = False

    @property
    def injection(self) -> str:
        """What strace calls it."""
        when = f"{self.number}+" if self.onwards else f"{self.number}"
        return f"inject={self.call}:error={self.error}:when={when}"


@attrs.frozen
class Told:
    """What became of a shim.

    Attributes:
        outcome: ``goes on``, ``reports PHASE``, or ``no such call``.
        wrong: what it should not have done.
    """

    outcome: str
    wrong: list[str]


class Player(Rig):
    """A shim of one kind, with at most one fault, from its launch to its end."""

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
        """What strace writes."""
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
        """Let it all happen."""
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
                return False  # it ends just now

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
        """Return what comes from the terminal; who is thrown out attaches again."""
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
        """End the shim, and what it made."""
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


# ---- all of them -------------------------------------------------------------------------------


def count_calls(tools: Tools, place: Path, kinds: Sequence[str] = KINDS) -> dict[str, Counter[str]]:
    """Return how often a shim of each kind makes each system call, undisturbed."""
    counts = {}
    for kind in kinds:
        player = Player(tools, place / f"{kind}-undisturbed", kind)
        told = player.play()
        assert told == Told("goes on", []), (kind, told)
        trace = player.trace.read_text()
        counts[kind] = Counter(re.findall(r"^(\w+)\(", trace, re.MULTILINE))
    return counts


def faults(calls: Counter[str], *, each: bool = False) -> Iterator[Fault]:
    """Give the faults of a kind: the first, the second and the last call fail with each error.

    Args:
        each: all calls do so; else those between fail with one error.
    """
    for call, count in sorted(calls.items()):
        errors = CAN_FAIL.get(common_name(call), "").split()
        for error in errors:
            for number in range(1, count + 1):
                if each or number in {1, 2, count} or error == errors[-1]:
                    yield Fault(call, error, number)


def common_name(call: str) -> str:
    """Return the name that a call has in the table."""
    return OTHER_NAMES.get(call, call)


def play_all(
    tools: Tools, place: Path, cells: Sequence[tuple[str, Fault]]
) -> list[tuple[str, Fault, Told]]:
    """Play each fault with its kind of shim."""

    def play(number: int) -> tuple[str, Fault, Told]:
        kind, fault = cells[number]
        path = place / str(number)
        told = Player(tools, path, kind, fault).play()
        if not told.wrong:
            shutil.rmtree(path)
        return kind, fault, told

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(play, range(len(cells))))


# ---- the table ---------------------------------------------------------------------------------

_INTRODUCTION = """\
# The shim under fire

Each system call of `supervisor-shim` failed, one at a time, with each error that the manual allows
for it, in shims of five kinds: with a plain process, with fifos, with a log, with a terminal, and
with a runtime that fails and leaves processes behind. None of them hung, lost an end or output, or
left a process behind. What they did:

- *goes on*: all is as it is without the error; a log may lack what couldn't be written, and then
  `shim-log.json` says so;
- *reports `phase`*: no process was made, and [the report](shim-protocol.md#the-report) says why.

Where both stand, it depends on which of its calls fails. After the report of a process nothing is
reported any more. – says that the call can't return the error. EIO of `open` isn't in the manual,
but it is what a bad disk says. What other machines call otherwise (`openat`, `ppoll`) stands under
its name on x86-64.

`python -m tests.native.shim_faults` makes this page, and lets every call of every run fail in
its turn, with each error. `tests/native/test_shim_faults.py` does so with the first, the
second and the last call of each name, and with one error for those between; with `--long` it leaves
out nothing.
"""

_LAST_WORDS = """\
A `close` that fails has closed the descriptor all the same. The shim also makes these, which can
return none of these errors:
"""


def table(played: Sequence[tuple[str, Fault, Told]]) -> dict[tuple[str, str], str]:
    """Return what the table says of each call with each error."""
    outcomes: dict[tuple[str, str], set[str]] = {}
    for _, fault, told in played:
        if told.outcome != "no such call":
            key = (common_name(fault.call), fault.error)
            outcomes.setdefault(key, set()).add(told.outcome)
    return {key: _cell(found) for key, found in outcomes.items()}


def _cell(outcomes: set[str]) -> str:
    phases = sorted(outcome.split()[1] for outcome in outcomes if outcome.startswith("reports"))
    parts = [f"reports {', '.join(phases)}"] if phases else []
    return "; ".join(parts + sorted(outcomes & {"goes on"}))


def rows(counts: dict[str, Counter[str]]) -> list[str]:
    """Return the system calls that have a row."""
    return sorted({common_name(call) for calls in counts.values() for call in calls} & {*CAN_FAIL})


def page(counts: dict[str, Counter[str]], played: Sequence[tuple[str, Fault, Told]]) -> str:
    """Return docs/shim-faults.md."""
    cells = table(played)
    lines = [f"| system call | {' | '.join(ERRORS)} |", "| --- |" + " --- |" * len(ERRORS)]
    for call in rows(counts):
        words = [cells.get((call, error), "–") for error in ERRORS]
        lines.append(f"| `{call}` | {' | '.join(words)} |")
    others = sorted({call for calls in counts.values() for call in calls} & CANNOT_FAIL)
    told = ", ".join(f"`{call}`" for call in others)
    return "\n".join([_INTRODUCTION, *lines, "", f"{_LAST_WORDS}{told}.", ""])


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="ts-shim-") as name:
        place = Path(name)
        tools = Tools.make(place)
        counts = count_calls(tools, place)
        cells = [(kind, fault) for kind in KINDS for fault in faults(counts[kind], each=True)]
        played = play_all(tools, place, cells)
    for kind, fault, told in played:
        if told.wrong:
            print(kind, fault.injection, *told.wrong)
    PAGE.write_text(page(counts, played))


if __name__ == "__main__":
    main()
