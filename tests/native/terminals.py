"""A terminal under test: the runtime that sends the terminal, and the clients that attach."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.native.rig import Rig, Word, descriptors, shell, switches
from tests.support.leaks import PATIENCE_SECONDS, wait_for

KEPT = 64 * 1024

_RUNTIME = """
import fcntl, os, socket, sys, termios, time, tty

master, slave = os.openpty()
tty.setraw(slave)
console = socket.socket(socket.AF_UNIX)
console.connect("console.sock")
socket.send_fds(console, [b"/dev/ptmx"], [master])
console.close()
os.close(master)
runtime = os.getpid()
read_fd, write_fd = os.pipe()
process = os.fork()
if process:
    os.close(write_fd)
    os.read(read_fd, 1)
    with open("pid", "w") as file:
        file.write(str(process))
    os._exit(0)
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
for fd in range(3):
    os.dup2(slave, fd)
os.closerange(3, 100)  # says that it is ready
while os.getppid() == runtime:
    time.sleep(0.001)
os.execv(sys.argv[1], sys.argv[1:])
"""


def terminal_runtime(*args: Word) -> list[Word]:
    """Return a runtime that makes a process of ``args`` in a new terminal, which is raw.

    The runtime sends the terminal to ``console.sock`` in the runtime's directory.
    """
    return [sys.executable, "-ISc", _RUNTIME, *args]


def script(text: str) -> list[Word]:
    """Return the command line of a Python program, which has os, sys and signal."""
    return [sys.executable, "-ISc", f"import os, signal, sys, time\n{text}"]


@contextlib.contextmanager
def reached(rig: Rig, name: str) -> Iterator[str]:
    """Give an address of a socket in the rig's directory that is short enough."""
    directory = os.open(rig.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def console(rig: Rig) -> Iterator[socket.socket]:
    """Listen at ``console.sock``."""
    with socket.socket(socket.AF_UNIX) as listener, reached(rig, "console.sock") as address:
        listener.bind(address)
        listener.listen(1)
        yield listener


def launch(rig: Rig, *args: Word, options: tuple[str, ...] = ()) -> int:
    """Launch a process with a terminal; return the process's pid."""
    with console(rig) as listener:
        fd = listener.fileno()
        rig.launch(terminal_runtime(*args), "--terminal", str(fd), *options, pass_fds=[fd])
        return rig.made()


class Client:
    """A client that attaches, or tries to.

    Attributes:
        header: the shim's first line, without the newline.
    """

    def __init__(self, rig: Rig, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_SECONDS)
        self._ahead = b""
        self._header: bytes | None = None
        try:
            with reached(rig, "terminal") as address:
                self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    @property
    def header(self) -> bytes:
        """The shim's first line."""
        while self._header is None:
            chunk = self.socket.recv(1 << 16)
            assert chunk, "no header came"
            self._ahead += chunk
            if b"\n" in self._ahead:
                self._header, _, self._ahead = self._ahead.partition(b"\n")
        return self._header

    @property
    def dropped(self) -> int:
        """How many bytes were lost; fails if we aren't attached."""
        word, number = self.header.split(b" ")
        assert word == b"attached"
        return int(number)

    def send(self, data: bytes) -> None:
        """Type all of ``data``."""
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes of output."""
        assert self.header
        while len(self._ahead) < size:
            chunk = self.socket.recv(1 << 16)
            assert chunk, (len(self._ahead), self._ahead[-200:])
            self._ahead += chunk
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def expect(self, data: bytes) -> None:
        """Read this output."""
        assert self.read(len(data)) == data

    def rest(self) -> bytes:
        """Return all output up to the end."""
        assert self.header
        while chunk := self.socket.recv(1 << 16):
            self._ahead += chunk
        data, self._ahead = self._ahead, b""
        return data

    def close(self) -> None:
        """Detach."""
        self.socket.close()


def numbered(total: int) -> bytes:
    """Return so many bytes, of which each part differs from all others."""
    return b"".join(b"%07d\n" % number for number in range(total // 8 + 1))[:total]


def counted(rig: Rig, total: int) -> Path:
    """Put ``numbered(total)`` into a file, for a process to write."""
    path = rig / "numbered"
    path.write_bytes(numbered(total))
    return path


TOTAL = 300_000


def hang_up(rig: Rig) -> None:
    """Hang the terminal up, and wait for the process's end by that; what is left is given up."""
    rig.control("3 0 0\n0 0 0\n")
    assert rig.end() == (129, signal.SIGHUP)


def read(rig: Rig, name: str) -> str:
    try:
        return (rig / name).read_text()
    except FileNotFoundError:
        return ""


def stuck(rig: Rig) -> bool:
    """Whether the shim sleeps for a while, and would sleep on for ever."""
    before = switches(rig.pid)
    for _ in range(30):
        subprocess.run(["/bin/true"], check=True)
    return rig.idle() and switches(rig.pid) == before


def full(rig: Rig) -> bool:
    """Whether the shim has no room for more output: the shim waits, but not for the terminal."""
    [master] = [fd for fd, what in descriptors(rig.pid).items() if what.endswith("/ptmx")]
    before = switches(rig.pid)
    watched = rig.watched()
    slept_on = rig.waiting() and switches(rig.pid) == before
    return slept_on and watched is not None and master not in watched


def leave(rig: Rig, total: int, *options: str) -> None:
    """Return when a process has ended whose output is all that is left."""
    launch(rig, *shell(f"cat {counted(rig, total)}; exit 3"), options=options)
    rig.wait_end()
    assert rig.recorded()[:2] == (3, 0)
    wait_for(rig.idle, "a shim that holds the output")


@contextlib.contextmanager
def stopped(rig: Rig) -> Iterator[None]:
    """Have the shim notice at once, and in no order, all that happens in the block."""
    rig.stop()
    yield
    os.kill(rig.pid, signal.SIGCONT)


def kill(rig: Rig) -> None:
    """End the process, and drop the rest of the output."""
    rig.control("3 0 0\n2 9 0\n")
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
