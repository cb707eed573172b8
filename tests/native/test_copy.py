"""Copiers: the processes between the process's fifo and the caller's file, pipe or terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from tests.native.leash import Leash
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    become,
    children,
    ended,
    flags_of,
    gone,
    read_some,
    read_to_end,
    runtime,
    shell,
    unread,
)
from tests.support.leaks import wait_for
from tests.support.processes import status_of

MIB = 1 << 20
NAME = "supervisor-copy"


def copiers(pid: int) -> list[int]:
    """Return the pids of a shim's copiers that have come to work."""
    return [child for child in children(pid) if status_of(child)["Name"] == NAME]


def one_copier(rig: Rig) -> int:
    """Return the only copier's pid, once the copier holds only the descriptors that a copier
    needs."""
    wait_for(lambda: len(copiers(rig.pid)) == 1, "a copier")
    [pid] = copiers(rig.pid)
    wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 3, "a copier that has let go")
    return pid


def pipe(rig: Rig, stream: str) -> tuple[int, str]:
    """Have a pipe of ours copied as that stream; return the pipe's other end, and the spec."""
    read_fd, write_fd = os.pipe()
    ours, theirs = (write_fd, read_fd) if stream == "stdin" else (read_fd, write_fd)
    os.set_blocking(ours, False)
    rig.adopt(ours)
    rig.adopt(theirs)
    return ours, rig.given(stream, theirs)


def test_output_is_complete_when_the_end_is_heard(rig: Rig) -> None:
    """The end of file on `exit` means that all output has reached the target."""
    spec = rig.file("stdout", "out")
    rig.launch(runtime(*shell(f"head -c {3 * MIB + 17} /dev/zero; exit 7")), "--stdout", spec)
    rig.made()
    rig.wait_end()
    assert (rig / "out").stat().st_size == 3 * MIB + 17
    assert rig.end() == (7, 0)


def test_a_target_that_takes_nothing_holds_the_end_up_for_a_moment(rig: Rig) -> None:
    """Where the output has no reader, the end is reported all the same, and then the shim goes."""
    reader, spec = pipe(rig, "stdout")
    size = 100_000  # more than a pipe holds, less than two
    rig.launch(runtime(*shell(f"head -c {size} /dev/zero")), "--stdout", spec)
    rig.made()
    rig.wait_end()
    copier = one_copier(rig)
    rig.control("3 0 0\n")
    assert rig.wait_gone() == 0
    assert gone(copier)
    rig.drop_given()
    assert 0 < len(read_to_end(reader)) < size


def test_output_goes_on_after_the_end(rig: Rig) -> None:
    """A grandchild that holds the output writes on: the shim stays for the output until
    dismissed."""
    gate = Gate(rig)
    pid = "echo $BASHPID >.pid; mv .pid orphan;"
    script = f"(echo one; {gate.wait} echo two; {pid} exec sleep 1000) & exit 3"
    rig.launch(runtime(*shell(script)), "--stdout", rig.file("stdout", "out"))
    rig.made()
    gate.wait_reached()
    rig.wait_end()
    wait_for(lambda: (rig / "out").read_bytes() == b"one\n", "the first")
    gate.open()
    wait_for(lambda: (rig / "out").read_bytes() == b"one\ntwo\n", "the rest")
    copier = one_copier(rig)
    wait_for((rig / "orphan").exists, "its pid")
    rig.control("3 0 0\n")
    assert rig.wait_gone() == 0
    assert gone(copier)
    os.kill(int((rig / "orphan").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("how", ["released", "signal", "leash"])
def test_what_is_written_is_copied_when_it_is_dismissed(rig: Rig, leash: Leash, how: str) -> None:
    """Output that the fifo still holds when the shim is released isn't lost."""
    words = ["--stdout", rig.file("stdout", "out"), "--leash", str(leash)]
    rig.launch(runtime(*SLEEP), *words, pass_fds=leash.fds)
    pid = rig.running()
    copier = one_copier(rig)
    os.kill(copier, signal.SIGSTOP)
    wait_for(lambda: status_of(copier)["State"].startswith("T"), "a stopped copier")
    fd = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    os.write(fd, b"words\n")
    os.close(fd)
    os.kill(pid, signal.SIGKILL)
    if how == "leash":
        leash.let_go()
    else:
        rig.wait_end()  # which waits for the copier, in vain
        assert (rig / "out").read_bytes() == b""
        if how == "signal":
            os.kill(rig.pid, signal.SIGTERM)
        else:
            rig.control("3 0 0\n")
    os.kill(copier, signal.SIGCONT)
    assert rig.wait_gone() == 0
    assert (rig / "out").read_bytes() == b"words\n"


def test_a_program_hears_that_nobody_takes_its_output(rig: Rig) -> None:
    """A write that fails is noted, and is SIGPIPE to the program that goes on writing."""
    fd = rig.open("/dev/full", os.O_WRONLY)
    rig.launch(runtime("/usr/bin/yes"), "--stdout", rig.given("stdout", fd))
    rig.made()
    assert rig.end() == (128 + signal.SIGPIPE, signal.SIGPIPE)
    [entry] = rig.log()
    assert entry["msg"] == "cannot write stdout: No space left on device"


def test_an_input_that_cannot_be_read(rig: Rig) -> None:
    """A source that fails is noted, and is an end of file to the program."""
    fd = rig.open("/proc/self/mem", os.O_RDONLY)  # at 0 nothing is mapped
    rig.launch(runtime("/bin/cat"), "--stdin", rig.given("stdin", fd))
    rig.made()
    assert rig.end() == (0, 0)
    [entry] = rig.log()
    assert entry["msg"].startswith("cannot read stdin: I")  # the C library names EISDIR


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_descriptor_that_does_not_block(rig: Rig, stream: str) -> None:
    """A copier waits for a descriptor with O_NONBLOCK, keeps the flag, and hides it from the
    process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        gate = Gate(rig)
        script = (
            f"{gate.wait} head -c {MIB} /dev/zero" if stream == "stdout" else "cat | wc -c >out"
        )
        rig.launch(runtime(*shell(script)), f"--{stream}", rig.given(stream, theirs.fileno()))
        pid = rig.made()
        fd = 0 if stream == "stdin" else 1
        assert not flags_of(pid, fd) & os.O_NONBLOCK
        if stream == "stdout":
            gate.open()
            heard = 0
            while heard < MIB:
                heard += len(ours.recv(1 << 16))
            assert heard == MIB
        else:
            ours.sendall(bytes(MIB))
            ours.shutdown(socket.SHUT_WR)
        assert rig.end() == (0, 0)
        if stream == "stdin":
            assert (rig / "out").read_text().split() == [str(MIB)]
        assert fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK


def test_input_ends_with_its_source(rig: Rig) -> None:
    """Input ends when the writer goes; what the writer wrote before comes first."""
    writer, spec = pipe(rig, "stdin")
    rig.launch(runtime(*shell("cat >out")), "--stdin", spec)
    rig.made()
    os.write(writer, b"words\n")
    rig.drop_given()
    rig.drop(writer)
    assert rig.end() == (0, 0)
    assert (rig / "out").read_bytes() == b"words\n"


def test_an_input_that_the_program_closes(rig: Rig) -> None:
    """When the input has no reader any more the copier ends, and the writer gets EPIPE."""
    writer, spec = pipe(rig, "stdin")
    rig.launch(runtime(*shell("read line; exec sleep 1000 <&-")), "--stdin", spec)
    pid = rig.made()
    rig.drop_given()
    copier = one_copier(rig)
    os.write(writer, b"first\n")
    become(pid, "sleep")
    wait_for(lambda: gone(copier), "its end")
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"second\n")


def test_an_input_that_never_ends(rig: Rig) -> None:
    """The copier of an input ends with the process, whatever is still to come."""
    writer, spec = pipe(rig, "stdin")
    rig.launch(runtime(*shell("read line")), "--stdin", spec)
    rig.made()
    copier = one_copier(rig)
    os.write(writer, b"first\n")
    assert rig.end() == (0, 0)
    assert gone(copier)


def test_without_its_shim_a_copier_goes_on(rig: Rig) -> None:
    """A shim that is killed takes no copiers with it; the copiers end with the process."""
    writer, spec_in = pipe(rig, "stdin")
    spec_out = rig.file("stdout", "out")
    rig.launch(runtime("/bin/cat"), "--stdin", spec_in, "--stdout", spec_out)
    pid = become(rig.made(), "cat")
    wait_for(lambda: len(copiers(rig.pid)) == 2, "two copiers")
    both = copiers(rig.pid)
    rig.drop_given()
    os.kill(rig.pid, signal.SIGKILL)
    rig.wait_gone()
    os.write(writer, b"words\n")
    wait_for(lambda: (rig / "out").read_bytes() == b"words\n", "what it copies")
    assert not any(ended(copier) for copier in both)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(ended(copier) for copier in both), "their end")


def test_a_copier_holds_nothing_of_its_shim(rig: Rig, leash: Leash) -> None:
    """A copier holds neither the shim's lock nor directory, `exit`, leash, nor the process's fifo
    end."""
    words = ["--stdout", rig.file("stdout", "out"), "--leash", str(leash)]
    rig.launch(runtime(*SLEEP), *words, pass_fds=leash.fds)
    pid = rig.made()
    copier = one_copier(rig)
    held = {fd: os.readlink(f"/proc/{copier}/fd/{fd}") for fd in range(3)}
    assert held.pop(2).startswith("socket:")
    assert held == {0: str(rig / "stdout"), 1: str(rig / "out")}
    assert os.readlink(f"/proc/{copier}/cwd") == "/"
    os.kill(rig.pid, signal.SIGKILL)
    rig.wait_gone()
    with (rig / "shim").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    rig.wait_closed()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: ended(copier), "the end of the copier")


def test_a_stop_signal_to_all_of_them(rig: Rig) -> None:
    """A service manager's SIGTERM reaches copiers too: they go on, and the last words arrive."""
    script = "trap 'echo last; exit 5' TERM; echo ready; while :; do read <never; done"
    os.mkfifo(rig / "never")
    rig.launch(runtime(*shell(script)), "--stdout", rig.file("stdout", "out"))
    rig.made()
    wait_for(lambda: (rig / "out").read_bytes() == b"ready\n", "a trap")
    copier = one_copier(rig)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(copier, number)
    os.kill(rig.pid, signal.SIGTERM)
    assert rig.end() == (5, 0)
    assert (rig / "out").read_bytes() == b"ready\nlast\n"


def test_what_a_runtime_says_before_it_fails(rig: Rig) -> None:
    """A create that fails ends the copiers, which have copied the runtime's output."""
    command = shell("echo reason >&2; sleep 1000 & exit 3")
    rig.launch(command, "--stderr", rig.file("stderr", "err"))
    told = rig.refused("runtime")
    assert told["code"] == 3
    assert (rig / "err").read_bytes() == b"reason\n"


@pytest.mark.parametrize("programs", ["release"], indirect=True)
def test_a_copier_is_no_process(rig: Rig) -> None:
    """A pid file that names a copier names nothing that a runtime has made."""
    gate = Gate(rig)
    rig.launch(shell(gate.wait), "--stdout", rig.file("stdout", "out"))
    gate.wait_reached()
    (rig / "pid").write_text(str(one_copier(rig)))
    gate.open()
    assert "which is no child of the shim" in rig.refused("pid")["error"]


def test_a_copier_that_is_killed(rig: Rig) -> None:
    """A program whose copier is killed gets SIGPIPE; the shim doesn't wait for the copier."""
    os.mkfifo(rig / "go")
    rig.launch(runtime(*shell("read <go; exec yes")), "--stdout", rig.file("stdout", "out"))
    rig.made()
    os.kill(one_copier(rig), signal.SIGKILL)
    fd = os.open(rig / "go", os.O_WRONLY)
    os.write(fd, b"\n")
    os.close(fd)
    assert rig.end() == (128 + signal.SIGPIPE, signal.SIGPIPE)


def test_readers_of_somebody_elses_fifo_come_and_go(rig: Rig) -> None:
    """hold:N is opened for both sides: what is written without a reader is kept."""
    rig.fifo("theirs")
    gate = Gate(rig)
    script = f"echo one; {gate.wait} echo two"
    rig.launch(runtime(*shell(script)), "--stdout", rig.held("stdout", "theirs"))
    rig.made()
    gate.wait_reached()
    first = rig.open("theirs", os.O_RDONLY | os.O_NONBLOCK)
    assert read_some(first) == b"one\n"
    rig.drop(first)
    gate.open()
    rig.wait_end()
    wait_for(rig.idle, "a shim that holds the output")
    assert read_to_end(rig.open("theirs", os.O_RDONLY | os.O_NONBLOCK)) == b"two\n"
    assert rig.wait_gone() == 0


def test_writers_of_somebody_elses_fifo_come_and_go(rig: Rig) -> None:
    """A held fifo as input doesn't end when a writer goes, only with `0 0 0`."""
    rig.fifo("theirs")
    words = ["--stdin", rig.held("stdin", "theirs"), "--stdout", rig.file("stdout", "out")]
    rig.launch(runtime("/bin/cat"), *words)
    rig.running("cat")
    for word in (b"one", b"two"):
        fd = rig.open("theirs", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, word)
        rig.drop(fd)
    wait_for(lambda: (rig / "out").read_bytes() == b"onetwo", "both")
    rig.control("0 0 0\n")
    assert rig.end() == (0, 0)


@pytest.mark.parametrize("programs", ["release"], indirect=True)
@pytest.mark.parametrize(
    ("call", "error", "phase"),
    [("fork", errno.EAGAIN, "fork"), ("socketpair", errno.EMFILE, "stdio")],
)
def test_no_copier_can_be_made(rig: Rig, call: str, error: int, phase: str) -> None:
    """Without one there is no process: what the runtime has made is ended."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    shim = [rig.programs.shim, "--directory", str(rig.path), "--stdout", rig.file("stdout", "out")]
    calls = "/^(fork|clone)$" if call == "fork" else call
    inject = [strace, "-D", "-o", "/dev/null", "-e"]
    inject += [f"inject={calls}:error={errno.errorcode[error]}"]
    rig.launch_words([*inject, *shim, "--", *runtime(*SLEEP)])
    told = rig.say()
    assert (told["phase"], told["errno"]) == (phase, error)
    assert rig.wait_gone() == 1


def test_an_idle_copier_never_wakes(rig: Rig) -> None:
    """A copier that waits for output waits without a timeout, and the shim does so too."""
    rig.launch(runtime(*SLEEP), "--stdout", rig.file("stdout", "out"))
    rig.made()
    copier = one_copier(rig)
    wait_for(rig.idle, "an idle shim")
    wait_for(lambda: status_of(copier)["State"].startswith("S"), "an idle copier")
    before = [status_of(pid)["voluntary_ctxt_switches"] for pid in (copier, rig.pid)]
    for _ in range(30):
        subprocess.run(["/bin/true"], check=True)
    assert [status_of(pid)["voluntary_ctxt_switches"] for pid in (copier, rig.pid)] == before


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_slow_reader_when_it_is_told_to_stop(rig: Rig, kind: str) -> None:
    """The shim stays until a slow reader has the rest; the shim once went half a second later."""
    size = 100_000
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        ours, theirs = socket.socketpair()
        reader, writer = ours.detach(), theirs.detach()
    rig.adopt(reader)
    rig.adopt(writer)
    script = f"head -c {size} /dev/zero; exit 3"
    rig.launch(runtime(*shell(script)), "--stdout", rig.given("stdout", writer))
    rig.made()
    rig.wait_end()
    rig.drop_given()
    os.kill(rig.pid, signal.SIGTERM)
    got = 0
    while chunk := os.read(reader, 8192):
        got += len(chunk)
        time.sleep(0.05)
    assert got == size
    assert rig.end() == (3, 0)
    assert rig.log() == []


def test_what_is_late_is_told(rig: Rig) -> None:
    """`copied` counts the late output at the end, and shows when output moves and when all has
    arrived."""
    reader, spec = pipe(rig, "stdout")
    gate = Gate(rig)
    script = f"head -c 100000 /dev/zero; {gate.wait}"
    rig.launch(runtime(*shell(script)), "--stdout", spec)
    rig.made()
    gate.wait_reached()
    wait_for(
        lambda: unread(reader) == fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ), "a full pipe"
    )  # nothing moves any more until a read
    gate.open()
    rig.wait_end()
    assert (rig / "copied").read_text() == "0 0 0 2 0".ljust(63) + "\n"
    os.set_blocking(reader, True)
    os.read(reader, 8192)
    wait_for(lambda: (rig / "copied").read_text()[8] != "0", "a move")
    rig.drop_given()
    assert len(read_to_end(reader)) == 100000 - 8192
    assert rig.wait_gone() == 0
    assert (rig / "copied").read_text().startswith("0 0 0 0 ")


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_terminal_that_was_closed(rig: Rig, stream: str) -> None:
    """A terminal whose other side is closed is no failure."""
    ours, theirs = os.openpty()
    rig.adopt(ours)
    rig.adopt(theirs)
    gate = Gate(rig)
    script = f"{gate.wait} echo words; exit 0" if stream == "stdout" else f"cat; {gate.wait}"
    rig.launch(runtime(*shell(script)), f"--{stream}", rig.given(stream, theirs))
    rig.made()
    one_copier(rig)
    if stream == "stdout":
        gate.wait_reached()
    rig.drop_given()
    rig.drop(ours)
    if stream == "stdin":
        gate.wait_reached()
    gate.open()
    assert rig.end() == (0, 0)
    assert rig.log() == []
