"""A process in a terminal, and whoever is attached to it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from tests.native.leash import Leash
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    Word,
    await_descriptors,
    become,
    descriptors,
    flags_of,
    gone,
    runtime,
    shell,
)
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

SEED = 20261124


@pytest.fixture
def cat(rig: Rig) -> int:
    """A process that says what it is told; its pid."""
    return become(launch(rig, "/bin/cat"), "cat")


# ---- attached from the beginning -----------------------------------------------------------


def test_attached_before_it_runs(rig: Rig) -> None:
    """Nothing is dropped: who has the other end of `--attached` gets all, without a header."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, console(rig) as listener:
            fds = [listener.fileno(), theirs.fileno()]
            options = ["--terminal", str(fds[0]), "--attached", str(fds[1])]
            command = terminal_runtime("/bin/cat", counted(rig, TOTAL))
            rig.launch(command, *options, pass_fds=fds)
            rig.made()
        ours.settimeout(20)
        heard = b"".join(iter(lambda: ours.recv(1 << 16), b""))
    assert heard == numbered(TOTAL)
    assert rig.end() == (0, 0)


@pytest.mark.parametrize("spec", ["0", "2", "x", "9"])
def test_attached_by_nothing(rig: Rig, spec: str) -> None:
    """What can't be that descriptor is refused."""
    with console(rig) as listener:
        fd = listener.fileno()
        options = ["--terminal", str(fd), "--attached", "999" if spec == "9" else spec]
        rig.launch(terminal_runtime(*SLEEP), *options, pass_fds=[fd])
        rig.refused("options")


# ---- attached ------------------------------------------------------------------------------


def test_raw_bytes_both_ways(rig: Rig, cat: int) -> None:
    """Whatever bytes are typed, the program gets them; whatever it writes comes back."""
    data = random.Random(SEED).randbytes(100_000) + bytes(range(256))
    with Client(rig) as client:
        assert client.header == b"attached 0"
        for at in range(0, len(data), 10_000):
            piece = data[at : at + 10_000]
            client.send(piece)
            client.expect(piece)
    hang_up(rig)


def test_the_socket_is_private(rig: Rig, cat: int) -> None:
    """Only the owner may attach."""
    assert (rig / "terminal").stat().st_mode & 0o777 == 0o600
    hang_up(rig)


def test_the_process_has_the_terminal_alone(rig: Rig, cat: int) -> None:
    """The process has its terminal and nothing of ours; we have the master, close-on-exec."""
    terminal = os.readlink(f"/proc/{cat}/fd/0")
    assert terminal.startswith("/dev/pts/")
    await_descriptors(cat, dict.fromkeys(range(3), terminal))
    with Client(rig) as client:
        assert client.header
        held = descriptors(rig.pid)
        assert all(flags_of(rig.pid, fd) & os.O_CLOEXEC for fd in held if fd > 2)
        kinds = sorted(os.path.basename(what).split(":")[0] for what in held.values())
        ours = ["anon_inode", "control", "exit", "exitStatus", "null", "null", "null", "ptmx"]
        assert kinds == sorted([*ours, "shim", "socket", "socket"])
    hang_up(rig)


def test_output_before_anybody_attached(rig: Rig) -> None:
    """What the program says at first is there for whoever comes first."""
    launch(rig, *shell("echo first; echo words >&2; exec cat"))
    with Client(rig) as client:
        client.expect(b"first\nwords\n")
        client.send(b"more")
        client.expect(b"more")
    hang_up(rig)


def test_one_at_a_time(rig: Rig, cat: int) -> None:
    """A second one is told that somebody is attached, and disturbs nobody."""
    with Client(rig) as client:
        assert client.dropped == 0
        for _ in range(3):
            with Client(rig) as other:
                with contextlib.suppress(BrokenPipeError):
                    other.send(b"not for the program")
                assert other.header == b"busy"
                with contextlib.suppress(ConnectionResetError):
                    assert other.rest() == b""
        client.send(b"words")
        client.expect(b"words")
    hang_up(rig)


def test_attached_again_and_again(rig: Rig, cat: int) -> None:
    """Who detaches makes room for the next one at once."""
    for number in range(50):
        with Client(rig) as client:
            word = b"word %d " % number
            assert client.dropped == 0
            client.send(word)
            client.expect(word)
    hang_up(rig)


def test_detached_it_goes_on(rig: Rig) -> None:
    """Nobody's reading stops no program: the last 64 KiB are kept, and the others counted."""
    launch(rig, *shell(f"cat {counted(rig, TOTAL)}; echo done >done; exec cat"))
    wait_for((rig / "done").exists, "a program that was not stopped")
    with Client(rig) as client:
        data = client.read(TOTAL - client.dropped)
        assert len(data) >= KEPT
        assert data == numbered(TOTAL)[client.dropped :]
        client.send(b"more")
        client.expect(b"more")
    with Client(rig) as client:
        assert client.header == b"attached 0"
        client.send(b"more")
        client.expect(b"more")
    hang_up(rig)


def test_dropped_since_the_last_one(rig: Rig) -> None:
    """Each header counts what was lost since the one before."""
    path = counted(rig, TOTAL)
    gates = [Gate(rig, name) for name in ("one", "two", "three")]
    launch(rig, *shell("".join(f"{gate.wait} cat {path}; " for gate in gates) + "exec cat"))
    gates[0].wait_reached()
    for before, after in itertools.pairwise(gates):
        before.open()
        after.wait_reached()
        with Client(rig) as client:
            assert 0 <= client.dropped <= TOTAL - KEPT
            client.expect(numbered(TOTAL)[client.dropped :])
    hang_up(rig)


def test_a_reader_gets_everything(rig: Rig) -> None:
    """While somebody is attached nothing is dropped, however slowly they read."""
    gate = Gate(rig)
    launch(rig, *shell(f"{gate.wait} cat {counted(rig, 2_000_000)}; exit 3"))
    gate.wait_reached()
    with Client(rig) as client:
        assert client.dropped == 0
        gate.open()
        data = b""
        while len(data) < 300_000:
            data += client.read(1)
            data += client.read(9_999)
            rig.waiting()
        assert data + client.rest() == numbered(2_000_000)
    assert rig.end() == (3, 0)


def test_a_client_that_never_reads(rig: Rig) -> None:
    """It stops the program's output alone: its input, lines and signals go on."""
    launch(rig, *shell("yes & while read line; do echo $line >got; done"))
    with Client(rig) as client:
        wait_for(lambda: full(rig), "output that nobody takes")
        client.send(b"words\n")
        wait_for(lambda: read(rig, "got") == "words\n", "input")
        rig.control("2 9 0\n")
        rig.wait_end()
        assert rig.recorded()[:2] == (137, 9)
        wait_for(rig.idle, "a shim that holds output")
        rig.control("3 0 0\n")
        assert rig.wait_gone() == 0


def test_typed_and_closed(rig: Rig) -> None:
    """What somebody typed who has closed already, and read nothing, gets to the program.

    It once ended where the terminal was full, or where the shim saw that nobody reads.
    """
    gate = Gate(rig)
    launch(rig, *shell(f"{gate.wait} echo echo; head -c 60000 >got; exec sleep 1000"))
    with Client(rig) as client:
        client.send(numbered(60_000))
    gate.open()
    wait_for(lambda: read(rig, "got") == numbered(60_000).decode(), "all that was typed")
    hang_up(rig)


def test_typed_in_vain(rig: Rig) -> None:
    """Input that the program never reads holds nobody up: who comes next takes its place."""
    launch(rig, *SLEEP)
    for _ in range(3):
        with Client(rig) as client:
            assert client.dropped == 0
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(1000):
                    client.socket.send(bytes(1000))
    hang_up(rig)


def test_gone_before_the_header(rig: Rig, cat: int) -> None:
    """Who connects and goes at once does no harm."""
    for _ in range(50):
        Client(rig).close()
    with Client(rig) as client:
        client.send(b"words")
        client.expect(b"words")
    hang_up(rig)


def test_half_closed(rig: Rig) -> None:
    """Who types no more stays attached, and reads to the end."""
    gate = Gate(rig)
    launch(rig, *shell(f"read line; {gate.wait} echo got $line; exit 3"))
    with Client(rig) as client:
        client.send(b"words\n")
        client.socket.shutdown(socket.SHUT_WR)
        gate.wait_reached()
        wait_for(rig.idle, "an idle shim")
        with Client(rig) as other:
            assert other.header == b"busy"
        gate.open()
        assert client.rest() == b"got words\n"
    assert rig.end() == (3, 0)


# ---- lines of control ----------------------------------------------------------------------

SIZES = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print("ready", flush=True)
while signal.sigwait([signal.SIGWINCH]):
    print(*os.get_terminal_size(0), flush=True)
"""


def test_resize(rig: Rig) -> None:
    """`1 W H` sets the terminal's size, and the program is told."""
    launch(rig, *script(SIZES))
    with Client(rig) as client:
        client.expect(b"ready\n")
        for columns, rows in ((80, 24), (1, 1), (65535, 65535), (132, 50)):
            rig.control(f"1 {columns} {rows}\n")
            client.expect(b"%d %d\n" % (columns, rows))
    assert rig.log() == []
    rig.control("2 9 0\n")
    assert rig.end() == (137, 9)


@pytest.mark.parametrize("line", ["1 0 24", "1 80 0", "1 65536 24", "1 80 -1", "1 80 65536"])
def test_bad_sizes(rig: Rig, cat: int, line: str) -> None:
    """A size that no terminal can have is skipped."""
    rig.control(f"{line}\n")
    hang_up(rig)
    assert [entry["msg"] for entry in rig.log()] == [f"control line skipped: {line}"]


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
    """`0 0 0` hangs up: the program reads the end, and whoever is attached as well."""
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
    """What the program had written before is still there for the next one."""
    pid = launch(rig, *script(IGNORING))
    wait_for((rig / "said").exists, "a program that is ready")
    rig.control("0 0 0\n")
    wait_for((rig / "hung-up").exists, "a program that reads the end")
    with Client(rig) as client:
        assert client.rest() == b"ready\n"
    os.kill(pid, signal.SIGKILL)
    assert rig.end() == (137, 9)


# ---- the end -------------------------------------------------------------------------------


def leave(rig: Rig, total: int, *options: str) -> None:
    """Return when a process has ended whose output is all that is left."""
    launch(rig, *shell(f"cat {counted(rig, total)}; exit 3"), options=options)
    rig.wait_end()
    assert rig.recorded()[:2] == (3, 0)
    wait_for(rig.idle, "a shim that holds the output")


@pytest.mark.parametrize("total", [1, 1000, KEPT - 1, KEPT, KEPT + 1, TOTAL])
def test_read_after_the_end(rig: Rig, total: int) -> None:
    """Output outlives the program until somebody has read it; what was lost is known exactly."""
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
    """A program all of whose output was read leaves no shim; its reader sees the end."""
    gate = Gate(rig)
    launch(rig, *shell(f"{gate.wait} echo words; exit 3"))
    with Client(rig) as client:
        gate.open()
        assert client.rest() == b"words\n"
        assert rig.end() == (3, 0)


def test_the_end_is_no_reset(rig: Rig) -> None:
    """Who typed something that nobody took reads the end all the same, not ECONNRESET."""
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
    """Nobody need read what is left: `3 0 0`, a signal or the leash's end let the shim go."""
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
    """What the program says when a signal stops it through its shim is read by who is attached."""
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
    """Somebody who holds the terminal for ever doesn't hold the shim."""
    launch(rig, *shell("trap '' HUP; sleep 1000 & echo $! >orphan; exit 3"))
    rig.wait_end()
    pid = int((rig / "orphan").read_text())
    assert rig.wait_gone() == 0
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_closed_and_opened_again(rig: Rig) -> None:
    """A program may close its terminal and open it again: it is seen again before long."""
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


# ---- idle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["detached", "attached", "half-closed", "full", "holding"])
def test_an_idle_shim_with_a_terminal_never_wakes(rig: Rig, state: str) -> None:
    """Whoever is attached or not, a shim that has nothing to do sleeps on."""
    with contextlib.ExitStack() as stack:
        if state == "holding":
            leave(rig, 1000)
        else:
            launch(rig, *([*shell("yes")] if state == "full" else SLEEP))
        if state in {"attached", "half-closed", "full"}:
            client = stack.enter_context(Client(rig))
            assert client.dropped >= 0
            if state == "half-closed":
                client.socket.shutdown(socket.SHUT_WR)
        # A program that writes until it is stopped may take a while until it is.
        wait_for(lambda: stuck(rig), "a shim that waits without a limit, and sleeps on")


@pytest.mark.parametrize("programs", ["release"], indirect=True)
def test_without_a_descriptor(rig: Rig) -> None:
    """A shim that has no descriptor for somebody who connects waits a while, and tries again.

    It once tried without end, since a connection that isn't accepted stays readable.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    # -D: the shim itself is our child, not strace. The first one is the runtime's connection.
    inject = [strace, "-D", "-o", "/dev/null", "-e", "inject=accept4:error=EMFILE:when=2"]
    shim = [rig.programs.shim, "--directory", str(rig.path)]
    with console(rig) as listener:
        fd = listener.fileno()
        command = [*inject, *shim, "--terminal", str(fd), "--", *terminal_runtime("/bin/cat")]
        rig.launch_words(command, pass_fds=[fd])
        rig.running("cat")
    before = time.monotonic()
    with Client(rig) as client:
        assert client.dropped == 0
        assert time.monotonic() - before > 0.9
    hang_up(rig)


# ---- refused -------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal_option(rig: Rig, command: list[Word]) -> Iterator[None]:
    with console(rig) as listener:
        fd = listener.fileno()
        rig.launch(command, "--terminal", str(fd), pass_fds=[fd])
        yield


def test_nobody_sends_a_terminal(rig: Rig) -> None:
    """A runtime that succeeds and sends no terminal has failed; its process is killed."""
    with terminal_option(rig, runtime(*SLEEP)):
        told = rig.refused("console")
    assert told["error"].startswith("the runtime sent no terminal")
    assert told["errno"] == errno.EAGAIN
    assert gone(int((rig / "pid").read_text()))


SENDING = """
import os, socket
console = socket.socket(socket.AF_UNIX)
console.connect("console.sock")
"""


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "console.send(b'/dev/ptmx')",
        "socket.send_fds(console, [b'/dev/null'], [os.open('/dev/null', os.O_RDWR)])",
        "socket.send_fds(console, [b'two'], os.openpty())",
        "socket.send_fds(console, [b'many'], list(os.openpty()) * 50)",
    ],
    ids=["nothing", "no-descriptor", "no-terminal", "two", "many"],
)
def test_something_else_is_sent(rig: Rig, sent: str) -> None:
    """A message that isn't one terminal is refused."""
    with terminal_option(rig, [sys.executable, "-ISc", SENDING + sent]):
        told = rig.refused("console")
    assert told["error"] == "the runtime sent something that is no terminal"
    assert told["errno"] == 0


def test_a_runtime_that_fails(rig: Rig) -> None:
    """Its own failure is what is reported, not that it sent no terminal."""
    with terminal_option(rig, shell("exit 4")):
        assert rig.refused("runtime")["code"] == 4


@pytest.mark.parametrize("spec", ["", "x", "2", "-3", "5x", "5:6", "99999999999"])
def test_bad_options(rig: Rig, spec: str) -> None:
    """A --terminal that is no descriptor is refused, and nothing is run."""
    rig.launch(runtime(*SLEEP), "--terminal", spec)
    assert rig.refused("options")["error"].startswith("--terminal takes a listening socket")
    assert not (rig / "pid").exists()


def test_no_such_descriptor(rig: Rig) -> None:
    """Nor is one that isn't open."""
    rig.launch(runtime(*SLEEP), "--terminal", "500")
    assert rig.refused("options")["errno"] == errno.EBADF


def test_a_descriptor_that_is_no_socket(rig: Rig) -> None:
    """Nothing can come through a descriptor that is no socket."""
    fd = rig.open("exit", os.O_RDONLY | os.O_NONBLOCK)
    rig.launch(runtime(*SLEEP), "--terminal", str(fd), pass_fds=[fd])
    assert rig.refused("console")["errno"] == errno.ENOTSOCK
