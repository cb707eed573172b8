"""Guards of the terminal that only a rare moment needs: brought about here, one by one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.native.rig import SLEEP, Rig, Word, become, descriptors, ended, shell
from tests.native.terminals import (
    KEPT,
    TOTAL,
    Client,
    console,
    counted,
    full,
    hang_up,
    launch,
    numbered,
    read,
    script,
    stuck,
    terminal_runtime,
)
from tests.support.leaks import wait_for
from tests.support.processes import status_of

pytestmark = pytest.mark.parametrize("programs", ["release"], indirect=True)


@contextlib.contextmanager
def stopped(rig: Rig) -> Iterator[None]:
    """Have the shim notice at once, and in no order, all that happens in the block."""
    rig.stop()
    yield
    os.kill(rig.pid, signal.SIGCONT)


def kill(rig: Rig) -> None:
    """End the process; what is left of its output is given up."""
    rig.control("3 0 0\n2 9 0\n")
    assert rig.end() == (137, signal.SIGKILL)


# ---- clients that go -----------------------------------------------------------------------


def test_who_reads_no_more_is_detached(rig: Rig) -> None:
    """Who has shut down the reading side only is told of by no hang-up: a write tells it.

    Else the shim would try to write again and again, and wait for more words for ever.
    """

    def made_room() -> bool:
        with Client(rig) as other:
            if other.header == b"busy":
                return False
            other.expect(b"words")
            return True

    launch(rig, "/bin/cat")
    with Client(rig) as client:
        assert client.dropped == 0
        client.socket.shutdown(socket.SHUT_RD)
        client.send(b"words")  # they come back
        wait_for(made_room, "room for the next one", 10)
    hang_up(rig)


def test_what_was_dropped_is_told_to_somebody(rig: Rig) -> None:
    """Who has gone before the header came hasn't heard what was lost: the next one is told."""
    launch(rig, *shell(f"cat {counted(rig, TOTAL)}; echo done >done; exec sleep 1000"))
    wait_for((rig / "done").exists, "a program that was not stopped")
    wait_for(rig.idle, "a shim that has read all of it")
    with stopped(rig):
        Client(rig).close()
    with Client(rig) as client:
        assert client.dropped == TOTAL - KEPT
    hang_up(rig)


def test_typed_before_it_was_seen(rig: Rig) -> None:
    """What somebody typed who had gone before the shim saw them gets to a silent program."""
    launch(rig, *shell("head -c 5 >got; exec sleep 1000"))
    wait_for(rig.idle, "an idle shim")
    with stopped(rig), Client(rig) as client:
        client.send(b"words")
    wait_for(lambda: read(rig, "got") == "words", "what was typed")
    hang_up(rig)


def test_nobody_is_kept_for_ever(rig: Rig) -> None:
    """Somebody who has gone, and whose words the program doesn't take, goes for the next one."""
    launch(rig, *SLEEP)
    wait_for(rig.idle, "an idle shim")
    before = len(descriptors(rig.pid))
    for _ in range(3):
        with Client(rig) as client:
            assert client.dropped == 0
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.socket.send(bytes(1000))
        wait_for(lambda: stuck(rig), "a shim that has seen it")
    assert len(descriptors(rig.pid)) <= before + 1
    hang_up(rig)


# ---- a program that has hung up --------------------------------------------------------------

FULL = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with contextlib.suppress(OSError):  # EIO, hung up
    while True:
        os.write(1, bytes(1000))
signal.pause()
"""


@pytest.mark.parametrize("pending", [False, True], ids=["then", "before"])
def test_input_for_nobody(rig: Rig, pending: bool) -> None:
    """What is typed for a program that was hung up holds nobody up, whatever waits to be read."""
    launch(rig, *script(f"import contextlib\n{FULL}"))
    with Client(rig) as client:  # reading the header may make room for all that the shim has
        wait_for(lambda: full(rig), "output that nobody takes")
        if pending:
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.socket.send(bytes(1000))
            wait_for(lambda: stuck(rig), "input that nobody takes")
            client.socket.settimeout(10)
        rig.control("0 0 0\n")
        client.send(bytes(1 << 20))
        assert set(client.rest()) == {0}
    kill(rig)


LAST = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
open("go").read()
print("last words", flush=True)
open("said", "w").close()
signal.pause()
"""


def test_said_before_a_hang_up(rig: Rig) -> None:
    """What the program has said is kept, though the shim hears of the hang-up first."""
    os.mkfifo(rig / "go")
    launch(rig, *script(LAST))
    wait_for(rig.idle, "an idle shim")
    control = rig.open("control", os.O_WRONLY | os.O_NONBLOCK)
    with stopped(rig):
        (rig / "go").write_text("")
        wait_for((rig / "said").exists, "the last words")
        os.write(control, b"0 0 0\n")
    with Client(rig) as client:
        assert client.rest() == b"last words\n"
    kill(rig)


MUCH = """
open("go").read()
os.set_blocking(1, False)
data, done = open("numbered", "rb").read(), 0
while True:
    try:
        done += os.write(1, data[done:done + 1000])
    except BlockingIOError:
        with open("next", "w") as file:
            file.write(str(done))
        os.rename("next", "said")
        time.sleep(0.02)
"""


def test_the_last_of_a_full_terminal(rig: Rig) -> None:
    """What is still in the terminal when the shim is released goes to whoever reads at last."""
    counted(rig, 2_000_000)
    os.mkfifo(rig / "go")
    pid = launch(rig, *script(MUCH))
    with Client(rig) as client:
        assert client.dropped == 0
        (rig / "go").write_text("")
        wait_for(lambda: (rig / "said").exists() and stuck(rig), "a full terminal")
        control = rig.open("control", os.O_WRONLY | os.O_NONBLOCK)
        with stopped(rig):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: ended(pid), "its end")
            total = int((rig / "said").read_text())
            data = drain(client)
            os.write(control, b"3 0 0\n")
        data += client.rest()
        # It may have been killed between a write and the note of it.
        assert len(data) >= total and data == numbered(len(data))
    assert rig.end() == (137, signal.SIGKILL)


def drain(client: Client) -> bytes:
    """Return what there is to read."""
    data = client.read(0)
    client.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            data += client.socket.recv(1 << 16)
    client.socket.settimeout(10)
    return data


# ---- calls that fail -------------------------------------------------------------------------


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_a_client_of_whom_nothing_can_be_read_yet(rig: Rig) -> None:
    """A read that was in vain detaches nobody."""
    become(launch(rig, "/bin/cat"), "cat")
    with Client(rig) as client:
        assert client.dropped == 0
        wait_for(rig.idle, "an idle shim")
        command = ["strace", "-o", "/dev/null", "-e", "inject=read:error=EAGAIN:when=1"]
        with subprocess.Popen([*command, "-p", str(rig.pid)], stderr=subprocess.DEVNULL) as strace:
            try:
                wait_for(lambda: status_of(rig.pid)["TracerPid"] != "0", "strace")
                client.send(b"words")
                client.expect(b"words")
            finally:
                strace.terminate()
    hang_up(rig)


@needs_strace
def test_a_terminal_that_takes_no_input(rig: Rig) -> None:
    """Input that can't be written is given up: whoever types is heard again, once it can be."""
    command: list[Word] = ["strace", "-D", "-o", "/dev/null", "-P", "/dev/ptmx"]
    command += ["-e", "inject=write:error=EIO:when=1", rig.programs.shim, "--directory"]
    with console(rig) as listener:
        fd = listener.fileno()
        words = [str(rig.path), "--terminal", str(fd), "--", *terminal_runtime("/bin/cat")]
        rig.launch_words([*command, *words], pass_fds=[fd])
        rig.running("cat")
    with Client(rig) as client:
        assert client.dropped == 0
        client.send(b"lost")
        wait_for(lambda: stuck(rig), "a shim that has given it up")
        client.send(b"words")
        client.expect(b"words")
    hang_up(rig)
