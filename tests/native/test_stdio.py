"""The process's standard streams, while the process runs."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from tests.native.rig import (
    SLEEP,
    Rig,
    become,
    flags_of,
    read_some,
    read_to_end,
    readable,
    runtime,
    shell,
)
from tests.support.leaks import wait_for

ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}


def accesses(pid: int) -> list[str]:
    """Return how a process's three streams are open, and check that none is non-blocking."""
    flags = [flags_of(pid, fd) for fd in range(3)]
    assert not any(flag & os.O_NONBLOCK for flag in flags)
    return [ACCESS[flag & os.O_ACCMODE] for flag in flags]


def test_null(rig: Rig) -> None:
    """A stream without an option is /dev/null: `cat` ends at once."""
    rig.launch(runtime("/bin/cat"))
    rig.made()
    assert rig.end() == (0, 0)


def test_fifos_are_open_one_way_and_blocking(rig: Rig) -> None:
    """The process's end of a fifo is never O_RDWR, so that the input can end, nor O_NONBLOCK."""
    options = ["--stdin", rig.fifo("in"), "--stdout", rig.fifo("out"), "--stderr", rig.fifo("err")]
    rig.launch(runtime(*SLEEP), *options)
    assert accesses(rig.running()) == ["r", "w", "w"]


def test_null_devices_are_open_one_way_and_blocking(rig: Rig) -> None:
    """The null device is open one way and blocking too, opened anew for each stream."""
    rig.launch(runtime(*SLEEP))
    assert accesses(rig.running()) == ["r", "w", "w"]


def test_copied_streams_are_open_one_way_and_blocking(rig: Rig) -> None:
    """The fifos of copied streams are open one way too, and the process can't open the other
    direction."""
    (rig / "in").write_text("words\n")
    options = ["--stdin", rig.file("stdin", "in"), "--stdout", rig.file("stdout", "out")]
    rig.launch(runtime(*SLEEP), *options, "--stderr", "stdout")
    pid = rig.running()
    assert accesses(pid) == ["r", "w", "w"]
    modes = [os.stat(f"/proc/{pid}/fd/{fd}").st_mode for fd in range(3)]
    assert all(stat.S_ISFIFO(mode) for mode in modes)
    assert [mode & 0o7777 for mode in modes] == [0o400, 0o200, 0o200]


def test_files(rig: Rig) -> None:
    """Copiers read a file from the beginning and write to a file's end."""
    (rig / "in").write_text("words\n")
    (rig / "out").write_text("before\n")
    rig.launch(
        runtime(*shell("cat; echo error >&2")),
        *("--stdin", rig.file("stdin", "in"), "--stdout", rig.file("stdout", "out")),
        *("--stderr", rig.file("stderr", "err")),
    )
    rig.made()
    assert rig.end() == (0, 0)
    assert (rig / "out").read_text() == "before\nwords\n"
    assert (rig / "err").read_text() == "error\n"


@pytest.mark.parametrize("stdout", ["fifo", "file", "null"])
def test_stderr_may_be_stdout(rig: Rig, stdout: str) -> None:
    """With `stdout` for stderr, the output of both arrives in one place, in the written order."""
    spec = "null"
    if stdout != "null":
        spec = rig.fifo("out") if stdout == "fifo" else rig.file("stdout", "out")
    command = runtime(*shell("echo 1; echo 2 >&2; echo 3"))
    rig.launch(command, "--stderr", "stdout", "--stdout", spec)
    rig.made()
    if stdout == "fifo":
        assert read_to_end(rig.open("out", os.O_RDONLY | os.O_NONBLOCK)) == b"1\n2\n3\n"
    assert rig.end() == (0, 0)
    if stdout == "file":
        assert (rig / "out").read_bytes() == b"1\n2\n3\n"


def test_writers_come_and_go(rig: Rig) -> None:
    """The process's input doesn't end when a writer goes; the next one writes on."""
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out"))
    rig.running("cat")
    reader = rig.open("out", os.O_RDONLY | os.O_NONBLOCK)
    for word in (b"one", b"two", b"three"):
        fd = rig.open("in", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, word)
        rig.drop(fd)
        assert read_some(reader) == word
    rig.control("0 0 0\n")
    assert rig.end() == (0, 0)


def test_readers_come_and_go(rig: Rig) -> None:
    """Output without a reader is kept, and no writer gets an error."""
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out"))
    rig.running("cat")
    writer = rig.open("in", os.O_WRONLY | os.O_NONBLOCK)
    for word in (b"one", b"two", b"three"):
        os.write(writer, word)
        reader = rig.open("out", os.O_RDONLY | os.O_NONBLOCK)
        assert read_some(reader) == word
        rig.drop(reader)
    rig.control("0 0 0\n")
    rig.drop(writer)
    assert rig.end() == (0, 0)


def test_a_full_fifo_blocks_the_writer(rig: Rig) -> None:
    """Output beyond a fifo's size waits for a reader, and no output is lost."""
    size = 300_000
    rig.launch(
        runtime(*shell(f"head -c {size} /dev/zero; echo done >err-done")),
        "--stdout",
        rig.fifo("out"),
    )
    rig.made()
    wait_for(rig.idle, "an idle shim")
    assert not (rig / "err-done").exists()
    assert len(read_to_end(rig.open("out", os.O_RDONLY | os.O_NONBLOCK))) == size
    assert rig.end() == (0, 0)


def test_the_end_of_output_is_heard(rig: Rig) -> None:
    """A reader gets EOF when the process closes its output, though process and shim live on."""
    rig.launch(runtime(*shell("echo words; exec sleep 1000 >&-")), "--stdout", rig.fifo("out"))
    rig.made()
    assert read_to_end(rig.open("out", os.O_RDONLY | os.O_NONBLOCK)) == b"words\n"
    assert (rig / "exitStatus").read_bytes().isspace()


def test_closed_input_is_heard(rig: Rig) -> None:
    """A writer gets EPIPE when the process closes its input, though process and shim live on."""
    rig.launch(runtime(*shell("read line; exec sleep 1000 <&-")), "--stdin", rig.fifo("in"))
    pid = rig.made()
    fd = rig.open("in", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"first\n")
    become(pid, "sleep")
    with pytest.raises(BrokenPipeError):
        os.write(fd, b"second\n")
    with pytest.raises(OSError, match="No such device"):
        rig.open("in", os.O_WRONLY | os.O_NONBLOCK)


def test_the_process_hears_that_nobody_reads_a_users_pipe(rig: Rig) -> None:
    """Only the copier has a given descriptor: a program that writes on gets SIGPIPE without a
    reader."""
    read_fd, write_fd = os.pipe()
    rig.launch(runtime("/usr/bin/yes"), "--stdout", rig.given("stdout", write_fd))
    os.close(write_fd)
    rig.made()
    assert read_some(read_fd)
    os.close(read_fd)
    assert rig.end() == (128 + signal.SIGPIPE, signal.SIGPIPE)


def test_input_that_nobody_wrote_ends_with_the_process(rig: Rig) -> None:
    """When the process has ended the shim closes the input: a reader of the input gets EOF."""
    rig.launch(runtime(*SLEEP), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out"))
    pid = rig.made()
    reader = rig.open("in", os.O_RDONLY | os.O_NONBLOCK)
    assert not readable(reader)
    out = rig.open("out", os.O_WRONLY | os.O_NONBLOCK)
    os.write(out, b"kept")
    os.kill(pid, signal.SIGTERM)
    rig.wait_end()
    assert read_to_end(reader) == b""
