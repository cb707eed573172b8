"""A terminal that is hung up, or whose process has ended."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.native.leash import Leash
from tests.native.rig import Gate, Rig, ended, gone, shell
from tests.native.terminals import (
    KEPT,
    TOTAL,
    Client,
    console,
    counted,
    drain,
    full,
    kill,
    launch,
    leave,
    numbered,
    script,
    stopped,
    stuck,
    terminal_runtime,
)
from tests.native.tracing import release
from tests.support.leaks import wait_for

IGNORING = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
open("said", "w").close()
try:
    assert not os.read(0, 1)
except OSError:  # EIO, if it was reading already
    pass
open("hung-up", "w").close()
signal.pause()
"""


def test_hang_up(rig: Rig) -> None:
    """`0 0 0` hangs up: the program and the attached client read the end."""
    pid = launch(rig, *script(IGNORING))
    with Client(rig) as client:
        client.expect(b"ready\n")
        rig.control("0 0 0\n")
        assert client.rest() == b""
    wait_for((rig / "hung-up").exists, "a program that reads the end")
    for _ in range(2):
        with Client(rig) as client:
            assert client.header == b"attached 0"
            assert client.rest() == b""
    rig.control("0 0 0\n1 80 24\n")
    wait_for(rig.idle, "an idle shim")
    os.kill(pid, signal.SIGKILL)
    assert rig.end() == (137, 9)
    assert rig.log() == []


def test_hung_up_with_output_left(rig: Rig) -> None:
    """Output from before a hang-up is still there for the next client."""
    pid = launch(rig, *script(IGNORING))
    wait_for((rig / "said").exists, "a program that is ready")
    rig.control("0 0 0\n")
    wait_for((rig / "hung-up").exists, "a program that reads the end")
    with Client(rig) as client:
        assert client.rest() == b"ready\n"
    os.kill(pid, signal.SIGKILL)
    assert rig.end() == (137, 9)


@pytest.mark.parametrize("total", [1, 1000, KEPT - 1, KEPT, KEPT + 1, TOTAL])
def test_read_after_the_end(rig: Rig, total: int) -> None:
    """Output outlives the program until a client has read it; the loss is known exactly."""
    leave(rig, total)
    with Client(rig) as client:
        assert client.dropped == max(total - KEPT, 0)
        assert client.rest() == numbered(total)[-KEPT:]
    assert rig.wait_gone() == 0


def test_nothing_left(rig: Rig) -> None:
    """A program that said nothing leaves no shim."""
    launch(rig, *shell("exit 3"))
    assert rig.end() == (3, 0)


def test_all_read(rig: Rig) -> None:
    """A program whose output was all read leaves no shim; the reader sees the end."""
    gate = Gate(rig)
    launch(rig, *shell(f"{gate.wait} echo words; exit 3"))
    with Client(rig) as client:
        gate.open()
        assert client.rest() == b"words\n"
        assert rig.end() == (3, 0)


def test_the_end_is_no_reset(rig: Rig) -> None:
    """A client whose input was never read gets the end all the same, not ECONNRESET."""
    launch(rig, *shell("echo words; read <go; exit 3"), options=make_go(rig))
    with Client(rig) as client:
        client.expect(b"words\n")
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                client.socket.send(bytes(1000))
        client.socket.settimeout(10)
        (rig / "go").write_text("\n")
        assert client.rest() == b""
    assert rig.end() == (3, 0)


def make_go(rig: Rig) -> tuple[str, ...]:
    rig.fifo("go")
    return ()


@pytest.mark.parametrize("how", ["line", "signal", "leash"])
def test_released(rig: Rig, how: str, leash: Leash) -> None:
    """Unread output doesn't keep the shim after `3 0 0`, a signal or the leash's end."""
    with console(rig) as listener:
        fds = [listener.fileno(), *leash.fds]
        options = ["--terminal", str(fds[0]), "--leash", str(leash)]
        rig.launch(terminal_runtime(*shell("echo words; exit 3")), *options, pass_fds=fds)
        rig.made()
    rig.wait_end()
    wait_for(rig.idle, "a shim that holds the output")
    if how == "line":
        rig.control("3 0 0\n")
    elif how == "signal":
        os.kill(rig.pid, signal.SIGTERM)
    else:
        leash.let_go()
    assert rig.wait_gone() == 0


def test_the_last_words_of_a_stopped_program(rig: Rig) -> None:
    """An attached client reads the last output of a program that a signal to the shim stopped."""
    stopping = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
print("bye", flush=True)
sys.exit(7)
"""
    launch(rig, *script(stopping))
    with Client(rig) as client:
        client.expect(b"ready\n")
        os.kill(rig.pid, signal.SIGTERM)
        assert client.rest() == b"bye\n"
    assert rig.end() == (7, 0)


def test_a_grandchild_that_keeps_the_terminal(rig: Rig) -> None:
    """A grandchild that holds the terminal for ever doesn't hold the shim."""
    launch(rig, *shell("trap '' HUP; sleep 1000 & echo $! >orphan; exit 3"))
    rig.wait_end()
    pid = int((rig / "orphan").read_text())
    assert rig.wait_gone() == 0
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_closed_and_opened_again(rig: Rig) -> None:
    """A program may close and reopen its terminal: the shim sees the terminal again before long."""
    gate = Gate(rig)
    again = f"""
name = os.ttyname(0)
null = os.open("/dev/null", os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
os.spawnv(os.P_WAIT, "/bin/bash", ["bash", "-c", "{gate.wait}"])
fd = os.open(name, os.O_RDWR)
os.write(fd, b"again")
while True:
    os.write(fd, os.read(fd, 100))
"""
    launch(rig, *script(again))
    with Client(rig) as client:
        assert client.dropped == 0
        gate.wait_reached()
        wait_for(lambda: rig.waiting() and not rig.idle(), "a shim that has seen it")
        gate.open()
        client.expect(b"again")
        client.send(b"words")
        client.expect(b"words")
        wait_for(rig.idle, "a shim that need not look any more")
    rig.control("2 9 0\n")
    assert rig.end() == (137, 9)


FULL = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with contextlib.suppress(OSError):  # EIO, hung up
    while True:
        os.write(1, bytes(1000))
signal.pause()
"""


@release
@pytest.mark.parametrize("pending", [False, True], ids=["then", "before"])
def test_input_for_nobody(rig: Rig, pending: bool) -> None:
    """Input for a program that was hung up doesn't block, whatever output is unread."""
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


@release
def test_said_before_a_hang_up(rig: Rig) -> None:
    """The program's last output is kept, though the shim reads of the hang-up first."""
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


@release
def test_the_last_of_a_full_terminal(rig: Rig) -> None:
    """Output that is still in the terminal when the shim is released goes to the last reader."""
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
        # The program may have been killed between a write and the count of that write.
        assert len(data) >= total and data == numbered(len(data))
    assert rig.end() == (137, signal.SIGKILL)
