"""A shim under test: the process directory, the shim's report, and what the shim leaves behind."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.native.programs import Programs
from tests.support.leaks import PATIENCE_SECONDS, wait_for
from tests.support.processes import status_of

Word = str | bytes


ALONE = 'while read -r _ _ _ parent _ </proc/self/stat; [ "$parent" = "$1" ]; do :; done'
"""A shell loop that ends when the process's parent isn't ``$1`` any more.

A shell, unlike a runtime, reaps its children: a process that ended before the shell did would be
lost.
"""


def runtime(*args: Word, before: str = "", after: str = "") -> list[Word]:
    """Return a runtime's command line that makes a process of ``args``, as `create` does.

    The process begins when the runtime has ended. Job control gives the process stdin and default
    signals, unlike a plain ``&``.

    Args:
        before: shell commands to run before the process is made.
        after: shell commands to run once the process is made and the pid file written.
    """
    # The process writes its own pid: a process that is still bash ignores SIGQUIT.
    process = f'/bin/sh -c \'echo $$ >pid; {ALONE}; shift; exec "$@"\' sh $$ "$@"'
    script = f"set -m; {before}\n {process} & until [ -s pid ]; do :; done; {after}"
    return ["/bin/bash", "-c", script, "runtime", *args]


def echoing(*numbers: int) -> list[Word]:
    """Return a process that prints ``ready``, and then the number of each of these signals.

    Not a shell: a shell that gets a signal just before a read runs the trap after the read.
    """
    script = """
import signal, sys
numbers = [int(word) for word in sys.argv[1:]]
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    print(signal.sigwait(numbers), flush=True)
"""
    return [sys.executable, "-ISc", script, *(str(int(number)) for number in numbers)]


def exiting(code: int) -> list[Word]:
    """Return a quick runtime whose process exits with ``code``."""
    return ["/bin/sh", "-c", f"set -- $$; ({ALONE}; exit {code}) & echo $! >pid"]


def shell(script: str) -> list[Word]:
    """Return a command line that runs a script, as a runtime or as a process."""
    return ["/bin/bash", "-c", script]


_POLLFD = struct.Struct("ihh")

SLEEP: Sequence[Word] = ("/bin/sleep", "1000")


class Rig:
    """One shim in one process directory.

    Attributes:
        path: the process directory; paths in it are made by ``rig / "name"``.
        shim: the shim's process, once launched.
        kept: whether `wait_end` read from ``exit`` that others can still write to the log.
    """

    def __init__(self, programs: Programs, path: Path) -> None:
        self.programs = programs
        self.path = path
        self.shim: subprocess.Popen[bytes] | None = None
        self.kept = False
        self._fds: list[int] = []
        self._given: list[int] = []
        path.mkdir()
        for name in ("exit", "control"):
            os.mkfifo(path / name, 0o600)
        self._exit_fd = self.open("exit", os.O_RDONLY | os.O_NONBLOCK)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    # ---- before -------------------------------------------------------------------------

    def fifo(self, name: str) -> str:
        """Make a fifo in the directory; return the fifo's spec."""
        os.mkfifo(self / name, 0o600)
        return f"fifo:{self / name}"

    def given(self, stream: str, fd: int) -> str:
        """Have an open descriptor copied as that stream; return the spec."""
        os.mkfifo(self / stream, 0o600)
        self._given.append(fd)
        return f"fd:{fd}"

    def held(self, stream: str, name: str) -> str:
        """Have a foreign fifo copied as that stream; return the spec."""
        return self.given(stream, self.open(name, os.O_PATH)).replace("fd:", "hold:")

    def file(self, stream: str, name: str) -> str:
        """Have a file copied as that stream, output at the file's end; return the spec."""
        flags = os.O_RDONLY if stream == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return self.given(stream, self.open(name, flags))

    def adopt(self, fd: int) -> None:
        """Close a descriptor with the rig, or earlier in `drop`."""
        self._fds.append(fd)

    def drop_given(self) -> None:
        """Close our copies of what the shim was given."""
        while self._given:
            self.drop(self._given.pop())

    def open(self, name: str, flags: int) -> int:
        """Open a file in the directory; the rig's end or `drop` closes the descriptor."""
        fd = os.open(self / name, flags | os.O_CLOEXEC, 0o600)
        self._fds.append(fd)
        return fd

    def drop(self, fd: int) -> None:
        """Close a descriptor that `open` opened."""
        self._fds.remove(fd)
        os.close(fd)

    def drop_exit(self) -> None:
        """Close our end of ``exit``, as if the reader had died."""
        self.drop(self._exit_fd)

    # ---- the launch and the report ------------------------------------------------------

    def launch(self, command: Sequence[Word], *options: Word, **popen: Any) -> int:
        """Launch the shim with the runtime's ``command``; return the shim's pid."""
        words = [self.programs.shim, "--directory", str(self.path), *options, "--", *command]
        return self.launch_words(words, **popen)

    def launch_words(self, words: Sequence[Word], **popen: Any) -> int:
        """Launch a command line as a launcher launches a shim."""
        told: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL,
            "start_new_session": True,
            "env": self.programs.environment,
        }
        if popen.get("close_fds", True):
            told["pass_fds"] = [*popen.pop("pass_fds", ()), *self._given]
        else:
            for fd in self._given:
                os.set_inheritable(fd, True)
        self.shim = subprocess.Popen(words, **{**told, **popen})
        return self.shim.pid

    def say(self) -> dict[str, Any]:
        """Return the shim's report."""
        assert self.shim is not None
        assert self.shim.stdout is not None
        line = read_to_end(self.shim.stdout.fileno())
        assert line.endswith(b"\n"), line
        assert line.count(b"\n") == 1
        told: dict[str, Any] = json.loads(line)
        return told

    def made(self) -> int:
        """Return the pid of the process that the shim reports."""
        told = self.say()
        assert "error" not in told, told
        assert set(told) == {"pid", "starttime"}
        pid: int = told["pid"]
        return pid

    def running(self, name: str = "sleep") -> int:
        """Return the pid of the process once the process is the program ``name``."""
        return become(self.made(), name)

    def refused(self, phase: str) -> dict[str, Any]:
        """Return the shim's report of a failure in ``phase``; the shim and all its children are
        gone then."""
        told = self.say()
        assert told.get("phase") == phase, told
        assert set(told) == {"error", "phase", "errno", "code", "signal"}
        assert self.wait_gone() == 1
        return told

    # ---- while the shim runs ------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The shim's pid."""
        assert self.shim is not None
        return self.shim.pid

    def control(self, data: str | bytes) -> None:
        """Write to ``control``, and wait for room in the fifo if there is none."""
        fd = os.open(self / "control", os.O_WRONLY | os.O_CLOEXEC)
        with open(fd, "wb", buffering=0) as file:
            rest = memoryview(data.encode() if isinstance(data, str) else data)
            while rest:
                rest = rest[file.write(rest) :]

    def stop(self) -> None:
        """Stop the shim where the shim waits: no further step until SIGCONT.

        This waits for the stopped state: a poll that SIGSTOP interrupts looks at the descriptors
        once more, and would report earlier events without later ones.
        """
        os.kill(self.pid, signal.SIGSTOP)
        wait_for(lambda: status_of(self.pid)["State"].startswith(("T", "Z")), "a stopped shim")

    def idle(self) -> bool:
        """Whether the shim waits for something to happen, without a time limit."""
        return self._wait_limit() in {"0x0", "0xffffffff", "0xffffffffffffffff"}

    def waiting(self) -> bool:
        """Whether the shim waits for something to happen, with a time limit or without."""
        return self._wait_limit() is not None

    def watched(self) -> set[int] | None:
        """Return the descriptors that the shim waits for, as given to poll; None if the shim runs.

        The result is meaningless if the shim wakes up meanwhile.
        """
        arguments = self._poll()
        if arguments is None:
            return None
        address, count = (int(word, 16) for word in arguments[:2])
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            data = memory.read(count * _POLLFD.size)
        return {fd for fd, _, _ in _POLLFD.iter_unpack(data)}

    def _wait_limit(self) -> str | None:
        """Return poll's timeout or ppoll's, the third argument of both."""
        arguments = self._poll()
        return None if arguments is None else arguments[2]

    def _poll(self) -> list[str] | None:
        """Return the arguments of the poll that the shim is in (man 5 proc_pid_syscall)."""
        words = (Path(f"/proc/{self.pid}/syscall")).read_text().split()
        return words[1:] if words[0] in {"7", "73"} else None  # poll on x86-64, ppoll on arm64

    def wait_idle(self) -> None:
        """Return when the shim has read all control lines and waits for something else."""
        fd = self.open("control", os.O_RDWR | os.O_NONBLOCK)
        wait_for(lambda: not readable(fd) and self.waiting(), "an idle shim")
        self.drop(fd)

    # ---- the end ------------------------------------------------------------------------

    def wait_end(self) -> None:
        """Return when ``exit`` says that the end is recorded."""
        told = read_some(self._exit_fd)  # to poll, an unopened fifo isn't at its end
        self.kept = told == b"+"
        assert (read_some(self._exit_fd) if self.kept else told) == b""

    def recorded(self) -> tuple[int, int, int, int]:
        """Return the code, signal, time and core flag in ``exitStatus``."""
        data = (self / "exitStatus").read_bytes()
        assert len(data) == 64
        assert data.endswith(b"\n")
        code, number, at_ns, core = map(int, data.split())
        return code, number, at_ns, core

    def end(self) -> tuple[int, int]:
        """Wait for the process's end and the shim's; return the process's code and signal."""
        self.wait_end()
        code, number, _, _ = self.recorded()
        assert self.wait_gone() == 0
        return code, number

    def wait_closed(self) -> None:
        """Return when no process has ``exit`` open for writing any more."""
        wait_for(lambda: os.read(self._exit_fd, 2) == b"", "the end of `exit`")

    def wait_gone(self) -> int:
        """Return the shim's exit code when the shim has ended."""
        assert self.shim is not None
        return self.shim.wait(PATIENCE_SECONDS)

    def log(self) -> list[dict[str, Any]]:
        """Return the entries of the shim's log."""
        try:
            lines = (self / "shim-log.json").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the shim and its children."""
        if self.shim is not None:
            if self.shim.poll() is None:
                self._kill_children()
                self.shim.kill()
                self.shim.wait()
            if self.shim.stdout is not None:
                self.shim.stdout.close()
        for fd in self._fds:
            os.close(fd)

    def _kill_children(self) -> None:
        # A stopped shim reaps nothing, so no pid of a child can be given to another process.
        self.stop()
        for child in children(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


class Gate:
    """Where a script waits until the test lets the script pass.

    Attributes:
        wait: the shell command that reports its arrival and waits.
    """

    def __init__(self, rig: Rig, name: str = "gate") -> None:
        self._reached = rig / f"{name}-reached"
        self._opened = rig / f"{name}-opened"
        for path in (self._reached, self._opened):
            os.mkfifo(path)
        self._reached_fd = rig.open(self._reached.name, os.O_RDWR | os.O_NONBLOCK)
        self._opened_fd = rig.open(self._opened.name, os.O_RDWR | os.O_NONBLOCK)
        self.wait = f"echo >{self._reached}; read <{self._opened};"

    def wait_reached(self) -> None:
        """Return when the script has come here."""
        assert read_some(self._reached_fd) == b"\n"

    def open(self) -> None:
        """Let the script pass."""
        os.write(self._opened_fd, b"\n")


def unread(fd: int) -> int:
    """Return how many bytes a fifo holds."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def become(pid: int, name: str) -> int:
    """Return the pid when the process runs the program ``name``."""
    wait_for(lambda: status_of(pid)["Name"] == name, f"a process {name}")
    return pid


def gone(pid: int) -> bool:
    """Whether there is no such process any more, not even a zombie."""
    return not os.path.exists(f"/proc/{pid}")


def ended(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return status_of(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return True


def flags_of(pid: int, fd: int) -> int:
    """Return the flags that a process's descriptor was opened with (man 5 proc_pid_fdinfo)."""
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    [flags] = [line.split()[1] for line in lines if line.startswith("flags:")]
    return int(flags, 8)


def readable(fd: int) -> bool:
    """Whether a read would not block."""
    return bool(select.select([fd], [], [], 0)[0])


def read_some(fd: int) -> bytes:
    """Wait until there is something to read, and return that; b"" at the end of file."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    events = poll.poll(PATIENCE_SECONDS * 1000)
    assert events, "nothing came to be read"
    return os.read(fd, 1 << 16)


def read_to_end(fd: int) -> bytes:
    """Return everything up to the end of file.

    This reads before it waits: a fifo opened after the last writer went never wakes its reader.
    """
    os.set_blocking(fd, False)
    data = b""
    while True:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            chunk = read_some(fd)
        if not chunk:
            return data
        data += chunk


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and make cgroups")


def switches(pid: int) -> int:
    """Return how often a process has gone to sleep."""
    return int(status_of(pid)["voluntary_ctxt_switches"])


def descriptors(pid: int) -> dict[int, str]:
    """Return what a process's descriptors refer to, as far as they stay open meanwhile."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def await_descriptors(pid: int, expected: dict[int, str]) -> None:
    """Wait until a process has exactly these descriptors: the loader opens libraries for a
    moment."""
    wait_for(lambda: descriptors(pid) == expected, f"{expected}, and nothing else")
