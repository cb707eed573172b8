"""How a process ended: the shim records the exit status exactly, in time and whatever happens."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.native.programs import Programs
from tests.native.rig import SLEEP, Gate, Rig, ended, exiting, gone, runtime, shell
from tests.support.leaks import wait_for

release_only = pytest.mark.parametrize("programs", ["release"], indirect=True)

HARMLESS = {"SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
FATAL = sorted(set(range(1, 65)) - {signal.Signals[name] for name in HARMLESS})


@release_only
def test_every_exit_code(programs: Programs, tmp_path: Path) -> None:
    """Each of the 256 exit codes is recorded unchanged, with no signal and the time of the end."""
    for code in range(256):
        rig = Rig(programs, tmp_path / str(code))
        before_ns = time.time_ns()
        rig.launch(exiting(code))
        rig.made()
        rig.wait_end()
        assert rig.recorded()[:2] == (code, 0)
        assert before_ns <= rig.recorded()[2] <= time.time_ns()
        assert rig.recorded()[3] == 0
        assert rig.wait_gone() == 0
        rig.close()


@release_only
def test_every_fatal_signal(programs: Programs, tmp_path: Path) -> None:
    """Each signal that ends a process is recorded, real-time ones too, as 128 + N and N."""
    for number in FATAL:
        rig = Rig(programs, tmp_path / str(number))
        rig.launch(runtime(*SLEEP))
        os.kill(rig.made(), number)
        assert rig.end() == (128 + number, number)
        rig.close()


@pytest.mark.parametrize("code", [0, 1, 127, 128, 137, 255])
def test_exit_code(rig: Rig, code: int) -> None:
    """An exit code above 128 isn't mistaken for a signal."""
    rig.launch(exiting(code))
    rig.made()
    assert rig.end() == (code, 0)


def allow_core() -> None:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background jobs ignore SIGQUIT
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM])
def test_core_flag(rig: Rig, number: int) -> None:
    """The core flag is the kernel's: as a plain child's, dumped on SIGQUIT and not on SIGTERM."""
    child = subprocess.Popen(SLEEP, cwd=rig.path, preexec_fn=allow_core)  # noqa: PLW1509
    os.kill(child.pid, number)
    status = os.waitpid(child.pid, 0)[1]
    child.returncode = 0
    rig.launch(runtime(*SLEEP), preexec_fn=allow_core)
    os.kill(rig.made(), number)
    assert rig.end() == (128 + number, number)
    assert rig.recorded()[3] == os.WCOREDUMP(status)


def test_the_record_has_its_room_from_the_start(rig: Rig) -> None:
    """`exitStatus` is 64 blank bytes, private, until the end fills them in place."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    path = rig / "exitStatus"
    before = path.stat()
    assert path.read_bytes() == b" " * 63 + b"\n"
    assert before.st_mode & 0o777 == 0o600
    os.kill(pid, signal.SIGKILL)
    assert rig.end() == (137, 9)
    assert path.stat().st_ino == before.st_ino
    assert re.fullmatch(rb"137 9 \d{19} 0 +\n", path.read_bytes())


@release_only
def test_the_end_is_recorded_before_it_can_be_noticed(rig: Rig) -> None:
    """The system calls come in this order: the record, the reaping, the end of `exit`."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = rig / "trace"
    calls = "trace=pwrite64,pwritev2,wait4,waitid,close,openat,open"
    words = [rig.programs.shim, "--directory", str(rig.path), "--", *runtime("/bin/true")]
    rig.launch_words([strace, "-o", str(trace), "-e", calls, *words])
    pid = rig.made()
    rig.wait_end()
    assert rig.wait_gone() == 0
    lines = trace.read_text().splitlines()
    exit_fd = next(re.findall(r"= (\d+)$", line)[0] for line in lines if '"exit"' in line)
    recorded = next(i for i, line in enumerate(lines) if "pwrite" in line and '"0 0 ' in line)
    waits = [i for i, line in enumerate(lines) if f"waitid(P_PID, {pid}," in line]
    reaped = next(i for i in waits if "WNOWAIT" not in lines[i])  # WNOWAIT doesn't reap
    told = next(i for i, line in enumerate(lines) if line.startswith(f"close({exit_fd})"))
    assert recorded < reaped < told
    assert lines[reaped].endswith("= 0")  # and the child was not reaped before


@release_only
def test_nothing_is_allocated(rig: Rig) -> None:
    """The shim asks for no memory from start to end."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = rig / "trace"
    words = [rig.programs.shim, "--directory", str(rig.path), "--", *runtime("/bin/true")]
    rig.launch_words([strace, "-o", str(trace), "-e", "trace=execve,memory", *words])
    rig.made()
    rig.wait_end()
    rig.wait_gone()
    lines = trace.read_text().splitlines()
    assert lines[0].startswith("execve(")
    if any("PROT_EXEC" in line for line in lines):
        pytest.skip("it is linked dynamically: its loader maps memory")
    asked = [line for line in lines if line.startswith(("mmap", "brk", "mremap"))]
    assert not asked


ZOMBIE = """
import os, sys
pid = os.fork()
if pid == 0:
    os._exit(5)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
open("pid", "w").write(str(pid))
"""


def test_a_process_that_ended_before_it_was_reported(rig: Rig) -> None:
    """A process that is a zombie when the pid is known is reported, and the exit status
    recorded."""
    rig.launch([sys.executable, "-ISc", ZOMBIE])
    rig.made()
    assert rig.end() == (5, 0)


ORPHAN = """
import os, signal, sys
ready, told = os.pipe()
middle = os.fork()
if middle == 0:
    os.close(ready)
    pid = os.fork()
    if pid == 0:
        while os.getppid() != int(sys.argv[1]):
            pass
        os.write(told, b".")
        os._exit(5)
    open("pid", "w").write(str(pid))
    os._exit(0)
os.waitpid(middle, 0)
os.close(told)
os.read(ready, 1)
os.read(ready, 1)  # its end of file: the process has ended
"""


def test_a_process_that_ended_while_the_runtime_worked(rig: Rig) -> None:
    """A process that was left to the shim and ends before the runtime isn't reaped unrecorded."""
    gate = Gate(rig)
    python = f"{shlex.quote(sys.executable)} -ISc {shlex.quote(ORPHAN)} $PPID"
    rig.launch(shell(f"{python}; {gate.wait}"))
    gate.wait_reached()
    pid = int((rig / "pid").read_text())
    wait_for(lambda: ended(pid), "its end")
    rig.wait_idle()
    assert not gone(pid)
    gate.open()
    rig.made()
    assert rig.end() == (5, 0)


def test_orphans_are_reaped(rig: Rig) -> None:
    """Orphans are reaped while the process lives, and not taken for the process."""
    orphan_file = rig / "orphan"
    script = "(sleep 1000 & echo $! >orphan.new; mv orphan.new orphan); exec sleep 1000"
    rig.launch(runtime(*shell(script)))
    pid = rig.made()
    wait_for(orphan_file.exists, "an orphan")
    orphan = int(orphan_file.read_text())
    os.kill(orphan, signal.SIGKILL)
    wait_for(lambda: gone(orphan), "its reaping")
    assert (rig / "exitStatus").read_bytes().isspace()
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


def test_grandchildren_do_not_hold_the_end_up(rig: Rig) -> None:
    """The end is reported, and the shim goes, while a grandchild lives on with the same output."""
    rig.launch(
        runtime(*shell("sleep 1000 & echo $! >orphan.new; mv orphan.new orphan; exit 6")),
        *("--stdout", rig.fifo("stdout")),
    )
    rig.made()
    assert rig.end() == (6, 0)
    os.kill(int((rig / "orphan").read_text()), signal.SIGKILL)


def test_the_end_is_recorded_without_descriptors(rig: Rig) -> None:
    """A shim that can open nothing more records the end, which needs nothing to be opened."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    resource.prlimit(rig.pid, resource.RLIMIT_NOFILE, (1, 1))
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)
