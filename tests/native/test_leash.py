"""The leash: what ends with the supervisor, at every stage."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from tests.native.leash import Break, Leash, breaks
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    children,
    ended,
    exiting,
    gone,
    read_some,
    runtime,
    shell,
)
from tests.native.tracing import killed, needs_strace, release, traced
from tests.support.leaks import wait_for
from tests.support.processes import status_of


@breaks
def test_the_process_ends(rig: Rig, leash: Leash, end: Break) -> None:
    """The process is killed, the exit status recorded, and the shim gone, for each kind of break.

    The pipe alone isn't enough: a forked child of a killed supervisor may hold the pipe.
    """
    rig.launch(runtime(*SLEEP), "--leash", str(leash), pass_fds=leash.fds)
    pid = rig.made()
    end(leash)
    assert rig.end() == (137, 9)
    assert gone(pid)


@breaks
def test_while_the_runtime_works(rig: Rig, leash: Leash, end: Break) -> None:
    """Before there is a process, the runtime and all its children end; nothing is left."""
    gate = Gate(rig)
    rig.launch(
        runtime(*SLEEP, after=f"sleep 1000 & echo $! >other; {gate.wait}"),
        *("--leash", str(leash)),
        pass_fds=leash.fds,
    )
    gate.wait_reached()
    made = [int((rig / name).read_text()) for name in ("pid", "other")]
    end(leash)
    told = rig.refused("leash")
    assert told["error"] == "the supervisor let go"
    assert all(gone(pid) for pid in made)


@breaks
def test_before_the_runtime(rig: Rig, leash: Leash, end: Break) -> None:
    """A leash that is broken from the start: the runtime isn't even run."""
    end(leash)
    rig.launch(["/bin/touch", "ran"], "--leash", str(leash), pass_fds=leash.fds)
    rig.refused("leash")
    assert not (rig / "ran").exists()


def test_when_the_runtime_has_just_succeeded(rig: Rig, leash: Leash) -> None:
    """A leash that breaks together with the runtime's success ends the new process."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, after=gate.wait), "--leash", str(leash), pass_fds=leash.fds)
    gate.wait_reached()
    [bash] = [pid for pid in children(rig.pid) if status_of(pid)["Name"] == "bash"]
    rig.stop()
    gate.open()
    wait_for(lambda: ended(bash), "the runtime's end")
    leash.let_go()
    os.kill(rig.pid, signal.SIGCONT)
    rig.refused("leash")
    assert gone(int((rig / "pid").read_text()))


def test_a_process_that_ignores_everything(rig: Rig, leash: Leash) -> None:
    """The leash kills: nothing that a process can ignore would do."""
    script = "trap '' TERM INT HUP; mkfifo never; echo x >ready; while :; do read x <>never; done"
    rig.launch(runtime(*shell(script)), "--leash", str(leash), pass_fds=leash.fds)
    rig.made()
    wait_for((rig / "ready").exists, "the traps")
    leash.let_go()
    assert rig.end() == (137, 9)


def test_an_exit_before_the_break_stands(rig: Rig, leash: Leash) -> None:
    """A process that exited before the break keeps its exit status, even if the break is right
    then."""
    rig.launch(runtime("/bin/sh", "-c", "exit 5"), "--leash", str(leash), pass_fds=leash.fds)
    pid = rig.made()
    rig.stop()
    try:
        wait_for(lambda: ended(pid), "its end")
        leash.let_go()
    finally:
        os.kill(rig.pid, signal.SIGCONT)
    assert rig.end() == (5, 0)


def test_data_in_the_pipe_breaks_nothing(rig: Rig, leash: Leash) -> None:
    """Only the pipe's end is a break; data in the pipe doesn't keep the shim awake."""
    rig.launch(runtime(*SLEEP), "--leash", str(leash), pass_fds=leash.fds)
    pid = rig.made()
    leash.write(b"words")
    wait_for(rig.idle, "an idle shim")
    assert not ended(pid)
    leash.let_go()
    assert rig.end() == (137, 9)


def test_it_is_let_go_of_afterwards(rig: Rig, leash: Leash) -> None:
    """A shim on a leash goes when the process has ended: a leash is no reason to stay."""
    rig.launch(exiting(3), "--leash", str(leash), pass_fds=leash.fds)
    rig.made()
    assert rig.end() == (3, 0)


@release
@needs_strace
def test_a_runtime_that_has_ended_is_never_signalled(rig: Rig, leash: Leash) -> None:
    """The shim never signals a runtime that has ended: the pid may be another process's by then."""
    traced(rig, "--leash", str(leash))
    pid = int((rig / "pid").read_text())
    leash.let_go()
    assert rig.wait_gone() == 0
    assert killed(rig) == [pid]


@release
@needs_strace
def test_a_broken_leash_is_heard_once(rig: Rig, leash: Leash) -> None:
    """The shim closes a leash that breaks, or would wake up for it again and again until the
    end."""
    script = "x = bytearray(256 << 20); print('ready', flush=True); import signal; signal.pause()"
    words = [sys.executable, "-ISc", script]  # the kernel takes a while to free the memory
    fifo = rig.fifo("stdout")
    traced(rig, "--stdout", fifo, "--leash", str(leash), process=words)
    reader = rig.open("stdout", os.O_RDONLY | os.O_NONBLOCK)
    assert read_some(reader) == b"ready\n"
    leash.let_go()
    assert rig.wait_gone() == 0
    assert killed(rig) == [int((rig / "pid").read_text())]


@release
@needs_strace
def test_a_leash_that_is_broken_already(rig: Rig, leash: Leash) -> None:
    """A leash that is broken already keeps the shim from starting the runtime."""
    leash.let_go()
    words = [rig.programs.shim, "--directory", str(rig.path), "--leash", str(leash), "--"]
    trace = ["strace", "-f", "-o", str(rig / "trace"), "-e", "trace=execve,execveat"]
    rig.launch_words([*trace, *words, "/bin/true"], pass_fds=leash.fds)
    rig.refused("leash")
    assert (rig / "trace").read_text().count("execve") == 1  # the shim's own


@release
@needs_strace
def test_killed_before_the_runtime_was_tied_to_it(rig: Rig) -> None:
    """A child that is no runtime yet, and whose shim is dead already, never becomes one."""
    words = [rig.programs.shim, "--directory", str(rig.path), "--", *shell("echo ran >ran")]
    # Stopped after the last signal is set to the default: between vfork and PR_SET_PDEATHSIG.
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
    with contextlib.suppress(ChildProcessError):  # the child was left to us, the subreaper
        os.waitpid(child, 0)
    assert not (rig / "ran").exists()
