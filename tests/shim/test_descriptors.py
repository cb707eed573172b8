"""What the shim keeps open, and what the runtime and its process get."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leaks import wait_for

from .leash import Leash
from .rig import SLEEP, Gate, Rig, flags_of, read_to_end, runtime, shell

LIST = 'for fd in /proc/$$/fd/*; do echo "${fd##*/} $(readlink $fd)"; done >fds'


def listed(rig: Rig, name: str = "fds") -> dict[int, str]:
    """Return the descriptors that a script has listed."""
    pairs = (line.split(" ", 1) for line in (rig / name).read_text().splitlines())
    # The shell's own: 255 is where bash keeps its script or terminal.
    return {int(fd): what for fd, what in pairs if what and int(fd) < 200}


@pytest.fixture
def leaked() -> Iterator[list[int]]:
    """Inheritable descriptors of many kinds, one of them a high number."""
    ours, theirs = socket.socketpair()
    read_fd, write_fd = os.pipe()
    fds = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(60)]
    fds += [read_fd, write_fd, os.dup(ours.fileno()), os.dup(theirs.fileno())]
    os.dup2(read_fd, 900)
    fds.append(900)
    for fd in fds:
        os.set_inheritable(fd, True)
    yield fds
    ours.close()
    theirs.close()
    for fd in fds:
        os.close(fd)


def test_the_runtime_gets_three_descriptors(rig: Rig, leaked: list[int], leash: Leash) -> None:
    """Whatever the launcher leaks, the runtime has 0, 1 and 2 and nothing else."""
    for fd in leash.fds:
        os.set_inheritable(fd, True)
    rig.launch(shell(f"{LIST}; exit 7"), "--leash", str(leash), close_fds=False)
    assert rig.refused("runtime")["code"] == 7
    assert listed(rig) == dict.fromkeys((0, 1, 2), "/dev/null") | {
        fd: what for fd, what in listed(rig).items() if what == f"{rig / 'fds'}"
    }


def test_the_process_gets_three_descriptors(rig: Rig, leaked: list[int]) -> None:
    """The process, too, has its three streams and nothing of the shim or its launcher."""
    out = rig.fifo("out")
    rig.launch(runtime(*SLEEP), "--stdin", rig.fifo("in"), "--stdout", out, close_fds=False)
    pid = rig.made()
    wait_for(lambda: os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "bash", "the process")
    found = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    own = {fd: what for fd, what in found.items() if fd <= 2}
    assert own == {0: str(rig / "in"), 1: str(rig / "out"), 2: "/dev/null"}
    assert set(found) <= {0, 1, 2, 10}  # 10: dash's script, until it has become the process


def test_the_shim_keeps_its_own(rig: Rig, leaked: list[int], leash: Leash) -> None:
    """The shim holds what the protocol names, all close-on-exec, and nothing that was leaked."""
    for fd in leash.fds:
        os.set_inheritable(fd, True)
    options = ["--leash", str(leash), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out")]
    pid = rig.launch(runtime(*SLEEP), *options, close_fds=False)
    rig.made()
    held = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert [held.pop(fd) for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert all(flags_of(pid, fd) & os.O_CLOEXEC for fd in held)
    assert {held.pop(fd).split(":")[0] for fd in leash.fds} == {"pipe", "anon_inode"}
    assert sorted(os.path.basename(what) for what in held.values()) == sorted(
        ["anon_inode:[signalfd]", "control", "exit", "exitStatus", "in", "out", "shim"]
    )


def test_the_end_of_an_inherited_pipe_is_heard(rig: Rig) -> None:
    """A pipe of the launcher's ends when the launcher closes it, though the shim runs on."""
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    rig.launch(runtime(*SLEEP), close_fds=False, stdin=write_fd, stderr=write_fd)
    os.close(write_fd)
    rig.made()
    assert read_to_end(read_fd) == b""
    os.close(read_fd)


def test_the_report_ends_although_the_runtime_still_runs(rig: Rig) -> None:
    """Nobody but the shim holds the pipe of the report: not the runtime, not the process."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    assert rig.shim is not None
    assert rig.shim.stdout is not None
    pipe = os.readlink(f"/proc/self/fd/{rig.shim.stdout.fileno()}")
    holders = [
        path
        for path in Path("/proc").glob("[0-9]*/fd/*")
        if same_link(path, pipe) and path.parts[2] != str(os.getpid())
    ]
    assert [path.parts[2] for path in holders] == [str(rig.pid)]
    gate.open()
    rig.made()


def same_link(path: Path, what: str) -> bool:
    try:
        return os.readlink(path) == what
    except OSError:
        return False


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)], ids=str)
def test_a_launcher_without_standard_streams(rig: Rig, closed: tuple[int, ...]) -> None:
    """Missing standard descriptors don't mix the process's streams up."""
    redirect = " ".join(f"{fd}<&-" for fd in closed)
    options = ["--stdout", rig.fifo("out"), "--stdin", rig.fifo("in"), "--stderr", rig.fifo("err")]
    command = [rig.programs.shim, "--directory", str(rig.path), *options, "--", *runtime(*SLEEP)]
    rig.launch_words(["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *command])
    pid = rig.made()
    names = [os.path.basename(os.readlink(f"/proc/{pid}/fd/{fd}")) for fd in range(3)]
    assert names == ["in", "out", "err"]
    assert all(os.readlink(f"/proc/{rig.pid}/fd/{fd}") == "/dev/null" for fd in range(3))


def test_given_descriptors_become_streams(rig: Rig, tmp_path: Path) -> None:
    """fd:N hands an inherited descriptor on, also one for two streams, and the shim drops it."""
    read_fd, write_fd = os.pipe()
    source = os.open(tmp_path / "in", os.O_RDWR | os.O_CREAT)
    os.write(source, b"words\n")
    os.lseek(source, 0, os.SEEK_SET)
    streams = ["--stdin", f"fd:{source}", "--stdout", f"fd:{write_fd}", "--stderr", f"fd:{write_fd}"]
    rig.launch(runtime(*shell("cat; echo more >&2")), *streams, pass_fds=[source, write_fd])
    os.close(source)
    os.close(write_fd)
    rig.made()
    assert read_to_end(read_fd) == b"words\nmore\n"
    os.close(read_fd)
    assert rig.end() == (0, 0)


def test_descriptors_given_in_any_order(rig: Rig, leash: Leash, leaked: list[int]) -> None:
    """Given descriptors are found whatever lies between, above and below them."""
    first, second = leaked[3], leaked[40]
    for fd in leash.fds:
        os.set_inheritable(fd, True)
    rig.launch(
        runtime(*SLEEP),
        *("--stderr", "fd:900", "--stdout", f"fd:{second}", "--stdin", f"fd:{first}"),
        *("--leash", str(leash)),
        close_fds=False,
    )
    pid = rig.made()
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)] == ["/etc/passwd"] * 2
    assert stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/2").st_mode)
