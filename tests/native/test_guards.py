"""Guards of the shim that only a rare moment needs: brought about here, one by one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.native.leash import Leash
from tests.native.rig import SLEEP, Rig, Word, children, ended, read_some, root_only, runtime, shell
from tests.support.leaks import wait_for

pytestmark = [
    pytest.mark.parametrize("programs", ["release"], indirect=True),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def traced(rig: Rig, *options: str, process: Sequence[Word] = SLEEP, calls: str = "kill") -> int:
    """Launch a shim, tracing its system calls; return the shim's pid."""
    words = [rig.programs.shim, "--directory", str(rig.path), *options, "--"]
    fds = [int(fd) for fd in options[-1].split(":")] if "--leash" in options else []
    command = ["strace", "-o", str(rig / "trace"), "-e", f"trace={calls}", *words]
    rig.launch_words([*command, *runtime(*process)], pass_fds=fds)
    rig.running(os.path.basename(process[0]))
    return int((rig / "shim").read_text().split()[0])


def killed(rig: Rig) -> list[int]:
    """Return the pids that the traced shim has sent signals to."""
    return [int(pid) for pid in re.findall(r"^kill\((-?\d+),", (rig / "trace").read_text(), re.M)]


def test_a_runtime_that_has_ended_is_never_signalled(rig: Rig, leash: Leash) -> None:
    """Its pid may be somebody else's by the time that the leash breaks."""
    traced(rig, "--leash", str(leash))
    pid = int((rig / "pid").read_text())
    leash.let_go()
    assert rig.wait_gone() == 0
    assert killed(rig) == [pid]


@pytest.mark.parametrize("how", ["signal", "line", "leash"])
def test_a_process_that_has_ended_is_never_signalled(rig: Rig, leash: Leash, how: str) -> None:
    """Its pid may be somebody else's while the shim stays for output that nobody has read."""
    fifo = rig.fifo("stdout")
    shim = traced(rig, "--stdout", fifo, "--leash", str(leash))
    pid = int((rig / "pid").read_text())
    writer = os.open(rig / "stdout", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"words\n")
    os.close(writer)
    os.kill(pid, signal.SIGTERM)
    rig.wait_end()
    if how == "signal":
        os.kill(shim, signal.SIGTERM)
    elif how == "line":
        rig.control(f"2 {signal.SIGTERM:d} 0\n3 0 0\n")
    else:
        leash.let_go()
    assert rig.wait_gone() == 0
    assert killed(rig) == []


def test_a_broken_leash_is_heard_once(rig: Rig, leash: Leash) -> None:
    """It is let go of when it breaks: it would be heard again and again until the end."""
    script = "x = bytearray(256 << 20); print('ready', flush=True); import signal; signal.pause()"
    words = [sys.executable, "-ISc", script]  # its memory takes a while to go
    fifo = rig.fifo("stdout")
    traced(rig, "--stdout", fifo, "--leash", str(leash), process=words)
    reader = rig.open("stdout", os.O_RDONLY | os.O_NONBLOCK)
    assert read_some(reader) == b"ready\n"
    leash.let_go()
    assert rig.wait_gone() == 0
    assert killed(rig) == [int((rig / "pid").read_text())]


def test_a_leash_that_is_broken_already(rig: Rig, leash: Leash) -> None:
    """Then the runtime isn't even begun."""
    leash.let_go()
    words = [rig.programs.shim, "--directory", str(rig.path), "--leash", str(leash), "--"]
    trace = ["strace", "-f", "-o", str(rig / "trace"), "-e", "trace=execve,execveat"]
    rig.launch_words([*trace, *words, "/bin/true"], pass_fds=leash.fds)
    rig.refused("leash")
    assert (rig / "trace").read_text().count("execve") == 1  # its own


def test_the_runtimes_program_is_let_go_of(rig: Rig) -> None:
    """A sealed copy of the runtime takes memory for as long as somebody holds it."""
    program = os.open("/bin/bash", os.O_RDONLY)
    rig.launch(runtime(*SLEEP), "--program", str(program), pass_fds=[program])
    os.close(program)
    rig.running()
    assert not any(os.readlink(fd).endswith("bash") for fd in Path(f"/proc/{rig.pid}/fd").iterdir())


def test_killed_before_the_runtime_was_tied_to_it(rig: Rig) -> None:
    """A child that is no runtime yet, and whose shim is dead already, never becomes one."""
    words = [rig.programs.shim, "--directory", str(rig.path), "--", *shell("echo ran >ran")]
    # Stopped after the last signal is set to its default: between vfork and PR_SET_PDEATHSIG.
    inject = ["-e", "trace=rt_sigaction", "-e", "inject=rt_sigaction:signal=SIGSTOP:when=64"]
    trace = rig / "trace"
    trace.touch()
    rig.launch_words(["strace", "-D", "-f", "-o", str(trace), *inject, *words])
    assert rig.shim is not None
    try:
        wait_for(lambda: "stopped by SIGSTOP" in trace.read_text(), "a stopped child")
        [child] = children(rig.pid)
    finally:
        rig.shim.kill()
        rig.shim.wait()
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: ended(child), "the child's end")
    with contextlib.suppress(ChildProcessError):  # it was left to us, the subreaper
        os.waitpid(child, 0)
    assert not (rig / "ran").exists()


STRANGER = 11
"""The first two figures of the pid that doesn't fit into what the shim reads at once."""


@root_only
def test_a_pid_that_was_cut_is_a_strangers(rig: Rig, tmp_path: Path) -> None:
    """After a failed create the shim kills its children by their list, as far as that goes."""
    last = "/proc/sys/kernel/ns_last_pid"  # in a pid namespace of its own the pids can be chosen
    words = " ".join([rig.programs.shim, "--directory", str(rig.path), "--"])
    # 511 bytes: "500 ", then "1001 " to "1101 ", then "11" of "1102 ".
    many = f"echo 499 >{last}; sleep 1000 & echo 1000 >{last}; "
    many += "for i in {1..110}; do sleep 1000 & done; exit 1"
    script = f"""
        echo {STRANGER - 1} >{last}; sleep 1000 & echo $! >{tmp_path}/stranger
        echo 200 >{last}; {words} /bin/bash -c '{many}' >{tmp_path}/report
        grep -xl sleep /proc/[0-9]*/comm >{tmp_path}/left
        grep State /proc/{STRANGER}/status >{tmp_path}/state
    """
    space = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    subprocess.run([*space, "/bin/bash", "-c", script], check=True, stdin=subprocess.DEVNULL)
    assert (tmp_path / "stranger").read_text() == f"{STRANGER}\n"
    assert '"phase": "runtime"' in (tmp_path / "report").read_text()
    assert (tmp_path / "left").read_text() == f"/proc/{STRANGER}/comm\n"
    assert "sleeping" in (tmp_path / "state").read_text()


def test_its_file_is_locked_before_it_has_its_name(rig: Rig) -> None:
    """Whoever finds the file unlocked knows that its shim is dead."""
    traced(rig, calls="flock,rename,renameat,renameat2")
    os.kill(int((rig / "pid").read_text()), signal.SIGKILL)
    assert rig.wait_gone() == 0
    lines = (rig / "trace").read_text().splitlines()
    assert lines[0].startswith("flock(") and '"shim")' in lines[1]


@root_only
def test_without_proc(rig: Rig) -> None:
    """A shim that can't see its children, and will not in a while either, still reports."""
    words = " ".join([rig.programs.shim, "--directory", str(rig.path), "--", "/bin/true"])
    script = f"mount -t tmpfs none /proc && exec {words}"
    rig.launch_words(["unshare", "--mount", "/bin/sh", "-c", script])
    assert "stat" in rig.refused("start")["error"]


@pytest.mark.parametrize("what", ["a line", "a read"])
def test_it_waits_again(rig: Rig, what: str) -> None:
    """After a control line, and after somebody has read a part of the output, it sleeps on."""
    rig.launch(runtime(*shell("echo words")), "--stdout", rig.fifo("stdout"))
    rig.made()
    rig.wait_end()
    wait_for(rig.idle, "a shim that holds the output")
    reader = rig.open("stdout", os.O_RDONLY | os.O_NONBLOCK)
    if what == "a line":
        rig.control("0 0 0\n")
    else:
        assert os.read(reader, 1) == b"w"
    before = used(rig.pid)
    time.sleep(0.4)
    assert used(rig.pid) - before < 0.1


def used(pid: int) -> float:
    """Return how many seconds of the processor's time a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
