"""A process in a terminal, and the clients that attach."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import socket
import subprocess
import time

import pytest

from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    Word,
    await_descriptors,
    become,
    descriptors,
    flags_of,
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
    leave,
    numbered,
    read,
    script,
    stopped,
    stuck,
    terminal_runtime,
)
from tests.native.tracing import needs_strace, release
from tests.support.leaks import wait_for
from tests.support.processes import status_of

SEED = 20261124


@pytest.fixture
def cat(rig: Rig) -> int:
    """A process that echoes its input; the fixture is the pid."""
    return become(launch(rig, "/bin/cat"), "cat")


# ---- attached from the beginning -----------------------------------------------------------


def test_attached_before_it_runs(rig: Rig) -> None:
    """No output is dropped: the other end of `--attached` gets all, without a header."""
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
    """A descriptor that can't be the attached client's is refused."""
    with console(rig) as listener:
        fd = listener.fileno()
        options = ["--terminal", str(fd), "--attached", "999" if spec == "9" else spec]
        rig.launch(terminal_runtime(*SLEEP), *options, pass_fds=[fd])
        rig.refused("options")


# ---- attached ------------------------------------------------------------------------------


def test_raw_bytes_both_ways(rig: Rig, cat: int) -> None:
    """All bytes pass unchanged in both directions, from the client to the program and back."""
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
    """The process has the terminal and nothing of ours; we have the master, close-on-exec."""
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
    """The first client gets the output that the program wrote before."""
    launch(rig, *shell("echo first; echo words >&2; exec cat"))
    with Client(rig) as client:
        client.expect(b"first\nwords\n")
        client.send(b"more")
        client.expect(b"more")
    hang_up(rig)


def test_one_at_a_time(rig: Rig, cat: int) -> None:
    """A second client reads `busy`, and disturbs neither the program nor the first client."""
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
    """A client that detaches makes room for the next one at once."""
    for number in range(50):
        with Client(rig) as client:
            word = b"word %d " % number
            assert client.dropped == 0
            client.send(word)
            client.expect(word)
    hang_up(rig)


def test_detached_it_goes_on(rig: Rig) -> None:
    """A program without a client goes on: the last 64 KiB are kept, and the others counted."""
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
    """An attached client gets all output, however slowly the client reads."""
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
    """A client that never reads stops only the output: input, lines and signals go on."""
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
    """The program gets all input of a client that has already closed and read nothing.

    The input once stopped where the terminal was full, or where the shim saw a closed reader.
    """
    gate = Gate(rig)
    launch(rig, *shell(f"{gate.wait} echo echo; head -c 60000 >got; exec sleep 1000"))
    with Client(rig) as client:
        client.send(numbered(60_000))
    gate.open()
    wait_for(lambda: read(rig, "got") == numbered(60_000).decode(), "all that was typed")
    hang_up(rig)


def test_typed_in_vain(rig: Rig) -> None:
    """Input that the program never reads doesn't block: the next client takes the old one's
    place."""
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
    """A client that connects and goes at once does no harm."""
    for _ in range(50):
        Client(rig).close()
    with Client(rig) as client:
        client.send(b"words")
        client.expect(b"words")
    hang_up(rig)


def test_half_closed(rig: Rig) -> None:
    """A client that types no more stays attached, and reads to the end."""
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
    """`1 W H` sets the terminal's size, and the program gets SIGWINCH."""
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


# ---- the end -------------------------------------------------------------------------------


# ---- idle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["detached", "attached", "half-closed", "full", "holding"])
def test_an_idle_shim_with_a_terminal_never_wakes(rig: Rig, state: str) -> None:
    """A shim that has nothing to do sleeps on, with a client or without one."""
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
        # A program that writes until the terminal is full may take a while to fill the terminal.
        wait_for(lambda: stuck(rig), "a shim that waits without a limit, and sleeps on")


@pytest.mark.parametrize("programs", ["release"], indirect=True)
def test_without_a_descriptor(rig: Rig) -> None:
    """A shim without a descriptor for a new connection waits a while, and tries again.

    The shim once tried without end, since a connection that isn't accepted stays readable.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    # -D: our child is the shim, not strace. The first connection is the runtime's.
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


@release
def test_who_reads_no_more_is_detached(rig: Rig) -> None:
    """A client that has shut down only the reading side is detached by a write: there is no
    hang-up.

    Otherwise the shim would try to write again and again, and wait for more input for ever.
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


@release
def test_what_was_dropped_is_told_to_somebody(rig: Rig) -> None:
    """If a client goes before the header, the next client's header counts the dropped bytes."""
    launch(rig, *shell(f"cat {counted(rig, TOTAL)}; echo done >done; exec sleep 1000"))
    wait_for((rig / "done").exists, "a program that was not stopped")
    wait_for(rig.idle, "a shim that has read all of it")
    with stopped(rig):
        Client(rig).close()
    with Client(rig) as client:
        assert client.dropped == TOTAL - KEPT
    hang_up(rig)


@release
def test_typed_before_it_was_seen(rig: Rig) -> None:
    """A silent program gets the input of a client that had gone before the shim accepted."""
    launch(rig, *shell("head -c 5 >got; exec sleep 1000"))
    wait_for(rig.idle, "an idle shim")
    with stopped(rig), Client(rig) as client:
        client.send(b"words")
    wait_for(lambda: read(rig, "got") == "words", "what was typed")
    hang_up(rig)


@release
def test_nobody_is_kept_for_ever(rig: Rig) -> None:
    """A client that has gone, and whose input the program doesn't take, is dropped for the next
    one."""
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


@release
@needs_strace
def test_a_client_of_whom_nothing_can_be_read_yet(rig: Rig) -> None:
    """A read that returns EAGAIN detaches no client."""
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


@release
@needs_strace
def test_a_terminal_that_takes_no_input(rig: Rig) -> None:
    """Input that can't be written is dropped, and later input arrives once the terminal takes
    it."""
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
