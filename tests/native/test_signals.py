"""Signals: what the process starts with, and what the shim does with a signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.native.leash import Leash
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    children,
    echoing,
    ended,
    exiting,
    gone,
    read_some,
    runtime,
)
from tests.native.tracing import killed, needs_strace, release, traced
from tests.support.leaks import wait_for
from tests.support.processes import status_of

STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
MASKS = ("SigBlk", "SigIgn", "SigCgt")


def ignore_all() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def block_all() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def spoil_all() -> None:
    ignore_all()
    block_all()


def nothing() -> None:
    pass


@pytest.mark.parametrize("spoil", [nothing, ignore_all, block_all, spoil_all])
def test_the_runtime_starts_with_a_clean_slate(rig: Rig, spoil: Callable[[], None]) -> None:
    """Whatever the launcher ignores or blocks, the runtime blocks and ignores nothing."""
    rig.launch(["/bin/cp", "/proc/self/status", "status"], preexec_fn=spoil, restore_signals=False)
    rig.refused("pid")
    lines = (rig / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert [int(status[key], 16) for key in MASKS] == [0, 0, 0]


def test_launched_by_posix_spawn(rig: Rig) -> None:
    """A shim launched by posix_spawn starts clean: glibc's leaves signals 32 and 33 ignored."""
    command = ["/bin/cp", "/proc/self/status", str(rig / "status")]
    words = [rig.programs.shim, "--directory", str(rig.path), "--", *command]
    null = (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)
    pid = os.posix_spawn(
        words[0], words, rig.programs.environment, file_actions=[null], setsid=True
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    lines = (rig / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert [int(status[key], 16) for key in MASKS] == [0, 0, 0]


@pytest.mark.parametrize("spoil", [ignore_all, block_all])
def test_the_process_starts_with_a_clean_slate(rig: Rig, spoil: Callable[[], None]) -> None:
    """The process starts with a clean signal state; runc hands its mask on to the process."""
    rig.launch(runtime(*SLEEP), preexec_fn=spoil, restore_signals=False)
    pid = rig.running()
    assert [int(status_of(pid)[key], 16) for key in MASKS] == [0, 0, 0]
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


@pytest.mark.parametrize("spoil", [nothing, ignore_all, block_all])
@pytest.mark.parametrize("number", STOPPING)
def test_stop_signals_go_on_to_the_process(
    rig: Rig, number: int, spoil: Callable[[], None]
) -> None:
    """SIGTERM, SIGINT and SIGHUP to the shim reach the process, under nohup, too."""
    rig.launch(runtime(*SLEEP), preexec_fn=spoil)
    rig.made()
    os.kill(rig.pid, number)
    assert rig.end() == (128 + number, number)


def test_every_stop_signal_goes_on(rig: Rig) -> None:
    """A process that handles them gets each one, and as often as they come."""
    rig.launch(runtime(*echoing(*STOPPING)), "--stdout", rig.fifo("out"))
    pid = rig.made()
    fd = rig.open("out", os.O_RDONLY | os.O_NONBLOCK)
    assert read_some(fd) == b"ready\n"
    for number in [*STOPPING, *STOPPING]:
        os.kill(rig.pid, number)
        assert read_some(fd) == f"{int(number)}\n".encode()
    os.kill(pid, signal.SIGKILL)
    assert rig.end() == (137, 9)


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGQUIT, signal.SIGPIPE, signal.SIGALRM, 34, 64]
)
def test_other_signals_do_nothing(rig: Rig, number: int) -> None:
    """No other signal ends the shim, real-time ones of any C library included."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    os.kill(rig.pid, number)
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)


def heard(pid: int) -> bool:
    """Whether a process has read all signals that were sent."""
    return int(status_of(pid)["ShdPnd"], 16) == 0


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_before_the_process_is_remembered(rig: Rig, number: int) -> None:
    """A signal that comes while the runtime works is delivered to the new process."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    os.kill(rig.pid, number)
    wait_for(lambda: heard(rig.pid), "the signal's reading")
    gate.open()
    rig.made()
    assert rig.end() == (128 + number, number)


def test_a_second_signal_gives_the_create_up(rig: Rig) -> None:
    """Two signals end the runtime and all its children, and the report says so."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, after=gate.wait))
    gate.wait_reached()
    process = int((rig / "pid").read_text())
    os.kill(rig.pid, signal.SIGTERM)
    os.kill(rig.pid, signal.SIGINT)
    told = rig.refused("runtime")
    assert told["error"] == "/bin/bash was given up: told twice to stop"
    assert (told["code"], told["signal"]) == (0, signal.SIGKILL)
    assert gone(process)
    assert not (rig / "starttime").exists()


def test_the_same_signal_twice(rig: Rig) -> None:
    """The same signal twice also gives the create up, if the shim reads both."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    os.kill(rig.pid, signal.SIGTERM)
    wait_for(lambda: heard(rig.pid), "the signal's reading")
    os.kill(rig.pid, signal.SIGTERM)
    assert rig.refused("runtime")["signal"] == signal.SIGKILL


def test_given_up_though_the_runtime_has_just_succeeded(rig: Rig) -> None:
    """Signals that are read together with the runtime's success still give the create up.

    The launcher has stopped listening by then: the process would run on unknown.
    """
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, after=gate.wait))
    gate.wait_reached()
    [bash] = [pid for pid in children(rig.pid) if status_of(pid)["Name"] == "bash"]
    rig.stop()
    gate.open()
    wait_for(lambda: ended(bash), "the runtime's end")
    os.kill(rig.pid, signal.SIGTERM)
    os.kill(rig.pid, signal.SIGINT)
    os.kill(rig.pid, signal.SIGCONT)
    told = rig.refused("runtime")
    assert (told["code"], told["signal"]) == (0, 0)
    assert gone(int((rig / "pid").read_text()))


def test_stopped_and_continued(rig: Rig) -> None:
    """A shim that was stopped while the process ended records the exit status after SIGCONT."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    rig.stop()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: ended(pid), "a zombie")
    os.kill(rig.pid, signal.SIGCONT)
    assert rig.end() == (143, 15)


def test_a_killed_shim_takes_the_runtime_with_it(rig: Rig) -> None:
    """SIGKILL of the shim kills the runtime, whose result would never be reported."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=f"echo $$ >runtime-pid; {gate.wait}"))
    gate.wait_reached()
    pid = int((rig / "runtime-pid").read_text())
    os.kill(rig.pid, signal.SIGKILL)
    assert rig.wait_gone() == -signal.SIGKILL
    wait_for(lambda: ended(pid), "the runtime's end")


def test_a_killed_shim_leaves_the_process(rig: Rig) -> None:
    """A later SIGKILL of the shim leaves the process alone, and records no invented exit status."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    os.kill(rig.pid, signal.SIGKILL)
    rig.wait_end()
    rig.wait_gone()
    assert status_of(pid)["PPid"] == str(os.getpid())
    assert (rig / "exitStatus").read_bytes().isspace()
    os.kill(pid, signal.SIGKILL)


def test_ignored_children(rig: Rig) -> None:
    """A launcher that ignores SIGCHLD doesn't have the kernel reap the process behind our back."""
    rig.launch(
        exiting(42), preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None
    )
    rig.made()
    assert rig.end() == (42, 0)


# ---- the launcher's death ------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the report", "after the report"])
def test_the_launcher_dies(rig: Rig, when: str) -> None:
    """Once `exit` is open the launcher may die at any time: the exit status is still recorded."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    assert rig.shim is not None
    assert rig.shim.stdout is not None
    if when == "after the report":
        gate.open()
        rig.made()
    rig.shim.stdout.close()
    rig.drop_exit()
    if when == "before the report":
        gate.open()
    wait_for((rig / "starttime").exists, "a process")
    wait_for(rig.idle, "a watching shim")
    os.kill(int((rig / "pid").read_text()), signal.SIGTERM)
    assert rig.wait_gone() == 0
    assert rig.recorded()[:2] == (143, 15)


@release
@needs_strace
@pytest.mark.parametrize("how", ["signal", "line", "leash"])
def test_a_process_that_has_ended_is_never_signalled(rig: Rig, leash: Leash, how: str) -> None:
    """A shim that stays for unread output never signals the ended process: another may have the
    pid."""
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
