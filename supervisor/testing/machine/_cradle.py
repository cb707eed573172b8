"""Cradle: a process that launches supervising programs and reaps their orphans, as init does.

The cradle is the subreaper of all programs below. The orphans of a killed program are reaped at
once, as on a real machine, and everything left at the end is a descendant of the cradle. The cradle
forks the programs: a fork takes milliseconds, a start of Python takes longer.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from .._processes import descendants
from .._subreaper import subreaper
from . import _actor

_MOST = 1 << 16


class Cradle:
    """The cradle, seen from the test. Leaving the ``with`` block kills everything below."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        self.pid: int = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            {**os.environ, "PYTHONPATH": paths},  # finds the modules of actors' classes, as we do
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), theirs.fileno())],
        )
        theirs.close()

    def launch(self, **told: Any) -> tuple[int, socket.socket]:
        """Launch a program; return the pid, and the socket for the program's commands."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = array.array("i", [theirs.fileno()])
            message = json.dumps(told).encode()
            self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return int(self._socket.recv(64)), ours

    def descendants(self) -> dict[int, str]:
        """Return the pids and command lines of all processes below the cradle."""
        return descendants(self.pid)

    def close(self) -> None:
        """End the cradle, and everything that is left below."""
        self._socket.close()
        os.waitpid(self.pid, 0)

    def __enter__(self) -> Cradle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main(fd: int) -> None:
    """Launch programs until the socket's other end closes; then kill everything that is left."""
    with subreaper():
        _launch_until_left(fd)
        _end_all()


def _launch_until_left(fd: int) -> None:
    gc.freeze()
    wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    with socket.socket(fileno=fd) as asked:
        while True:
            ready, _, _ = select.select([asked.fileno(), wakeup], [], [])
            if wakeup in ready:
                os.read(wakeup, 4096)
                _reap()
            if asked.fileno() in ready:
                message, fds, _, _ = socket.recv_fds(asked, _MOST, 1)
                if not message:
                    break
                asked.send(str(_fork(asked, json.loads(message), fds[0])).encode())
                os.close(fds[0])


def _fork(asked: socket.socket, told: dict[str, Any], fd: int) -> int:
    with contextlib.suppress(Exception):  # the program will fail in the same way, and say so
        _actor.class_of(told["actor"])  # imported here, once: that takes longer than all the rest
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked.close()
        _actor.main(fd, **told)
        os._exit(0)
    return pid


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_all() -> None:
    while left := descendants(os.getpid()):
        for pid in left:  # only we reap them, so the pids are still theirs
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()


if __name__ == "__main__":
    main(int(sys.argv[1]))
