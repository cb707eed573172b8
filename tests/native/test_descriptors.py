"""What the shim keeps open, and what the runtime and the process get."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.leash import Leash
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    await_descriptors,
    descriptors,
    flags_of,
    read_some,
    read_to_end,
    runtime,
    shell,
)
from tests.native.tracing import needs_strace, release

NAMES = ("stdin", "stdout", "stderr")


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
    options = ["--leash", str(leash), "--stdout", rig.file("stdout", "listed")]
    rig.launch(["/bin/ls", "-l", "/proc/self/fd"], *options, close_fds=False)
    rig.refused("pid")
    lines = (rig / "listed").read_text().splitlines()
    pairs = dict(line.split(" -> ") for line in lines if " -> " in line)
    found = {int(key.split()[-1]): what for key, what in pairs.items()}
    assert re.fullmatch(r"/proc/\d+/fd", found.pop(3))  # what ls is listing
    assert found == {0: "/dev/null", 1: str(rig / "stdout"), 2: "/dev/null"}


def test_the_process_gets_three_descriptors(rig: Rig, leaked: list[int]) -> None:
    """The process, too, has three streams and no descriptor of the shim or the launcher."""
    out = rig.fifo("out")
    rig.launch(runtime(*SLEEP), "--stdin", rig.fifo("in"), "--stdout", out, close_fds=False)
    pid = rig.running()
    await_descriptors(pid, {0: str(rig / "in"), 1: str(rig / "out"), 2: "/dev/null"})


def test_the_shim_keeps_its_own(rig: Rig, leaked: list[int], leash: Leash) -> None:
    """The shim holds what the protocol names, all close-on-exec, and nothing that was leaked."""
    for fd in leash.fds:
        os.set_inheritable(fd, True)
    options = ["--leash", str(leash), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out")]
    pid = rig.launch(runtime(*SLEEP), *options, close_fds=False)
    rig.made()
    held = descriptors(pid)
    assert [held.pop(fd) for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert all(flags_of(pid, fd) & os.O_CLOEXEC for fd in held)
    assert {held.pop(fd).split(":")[0] for fd in leash.fds} == {"pipe", "anon_inode"}
    assert sorted(os.path.basename(what) for what in held.values()) == sorted(
        ["anon_inode:[signalfd]", "control", "exit", "exitStatus", "in", "out", "shim"]
    )


def test_the_end_of_an_inherited_pipe_is_heard(rig: Rig) -> None:
    """A pipe of the launcher ends when the launcher closes the pipe, though the shim runs on."""
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    rig.launch(runtime(*SLEEP), close_fds=False, stdin=write_fd, stderr=write_fd)
    os.close(write_fd)
    rig.made()
    assert read_to_end(read_fd) == b""
    os.close(read_fd)


def test_the_report_ends_although_the_runtime_still_runs(rig: Rig) -> None:
    """Only the shim holds the pipe of the report: not the runtime, not the process."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    assert rig.shim is not None
    assert rig.shim.stdout is not None
    pipe = os.readlink(f"/proc/self/fd/{rig.shim.stdout.fileno()}")
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
    assert [pid for pid in pids if pipe in links(pid)] == [rig.pid]
    gate.open()
    rig.made()


def links(pid: int) -> set[str]:
    """Return what a process's descriptors refer to; nothing if the process goes meanwhile."""
    found = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(path))
    return found


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)], ids=str)
def test_a_launcher_without_standard_streams(rig: Rig, closed: tuple[int, ...]) -> None:
    """Missing standard descriptors don't mix the process's streams up."""
    redirect = " ".join(f"{fd}<&-" for fd in closed)
    options = ["--stdout", rig.fifo("out"), "--stdin", rig.fifo("in"), "--stderr", rig.fifo("err")]
    command = [rig.programs.shim, "--directory", str(rig.path), *options, "--", *runtime(*SLEEP)]
    rig.launch_words(["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *command])
    expected = {fd: str(rig / name) for fd, name in enumerate(("in", "out", "err"))}
    await_descriptors(rig.running(), expected)
    assert [descriptors(rig.pid)[fd] for fd in range(3)] == ["/dev/null"] * 3


def test_given_descriptors_are_copied(rig: Rig, tmp_path: Path) -> None:
    """fd:N is a foreign descriptor: the process gets fifos, and the shim drops the given
    descriptor."""
    read_fd, write_fd = os.pipe()
    source = os.open(tmp_path / "in", os.O_RDWR | os.O_CREAT)
    os.write(source, b"words\n")
    os.lseek(source, 0, os.SEEK_SET)
    streams = ["--stdin", rig.given("stdin", source), "--stdout", rig.given("stdout", write_fd)]
    streams += ["--stderr", rig.given("stderr", write_fd)]
    os.mkfifo(rig / "exit-here")
    rig.launch(runtime(*shell("cat; echo more >&2; read <exit-here")), *streams)
    os.close(source)
    os.close(write_fd)
    pid = rig.made()
    heard = b""
    while len(heard) < len(b"words\nmore\n"):
        heard += read_some(read_fd)
    assert sorted(heard.splitlines()) == [b"more", b"words"]
    await_descriptors(pid, {fd: str(rig / name) for fd, name in enumerate(NAMES)})
    assert not {str(tmp_path / "in"), os.readlink(f"/proc/self/fd/{read_fd}")} & links(rig.pid)
    os.write(rig.open("exit-here", os.O_WRONLY), b"\n")
    assert read_to_end(read_fd) == b""
    os.close(read_fd)
    assert rig.end() == (0, 0)


def test_descriptors_given_in_any_order(rig: Rig, leash: Leash, leaked: list[int]) -> None:
    """Given descriptors are found whatever lies between, above and below them."""
    first, second = leaked[3], leaked[40]
    for fd in leash.fds:
        os.set_inheritable(fd, True)
    rig.launch(
        runtime(*SLEEP),
        *("--stderr", rig.given("stderr", 900), "--stdout", rig.given("stdout", second)),
        *("--stdin", rig.given("stdin", first), "--leash", str(leash)),
        close_fds=False,
    )
    await_descriptors(rig.running(), {fd: str(rig / name) for fd, name in enumerate(NAMES)})


@pytest.mark.parametrize("third", ["given", "program", "nothing"])
def test_what_is_given_is_descriptor_3(rig: Rig, third: str) -> None:
    """The runtime gets the descriptor as 3, whatever was 3 before, and the shim keeps no copy."""
    read_fd, write_fd = os.pipe()
    bash = os.open("/bin/bash", os.O_RDONLY)
    moved = {"given": write_fd, "program": bash, "nothing": os.open("/dev/null", os.O_RDONLY)}
    number = 3 if third == "given" else write_fd
    program = ["--program", str(3 if third == "program" else bash)]
    told = {"preexec_fn": lambda: os.dup2(moved[third], 3), "pass_fds": [3, write_fd, bash]}
    command = runtime(*SLEEP, before="ls /proc/self/fd >listed; echo it is >&3; exec 3>&-")
    rig.launch(command, "--give", str(number), *program, **told)
    for fd in (write_fd, bash, moved["nothing"]):
        os.close(fd)
    rig.made()
    assert read_to_end(read_fd) == b"it is\n"  # and the end: no other process has the pipe
    os.close(read_fd)
    assert (rig / "listed").read_text().split() == ["0", "1", "2", "3", "4"]  # 4: what ls lists


@release
@needs_strace
def test_the_runtimes_program_is_let_go_of(rig: Rig) -> None:
    """The shim closes the sealed copy of the runtime, which takes memory as long as it is open."""
    program = os.open("/bin/bash", os.O_RDONLY)
    rig.launch(runtime(*SLEEP), "--program", str(program), pass_fds=[program])
    os.close(program)
    rig.running()
    assert not any(os.readlink(fd).endswith("bash") for fd in Path(f"/proc/{rig.pid}/fd").iterdir())
