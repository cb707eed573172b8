"""A process that launches supervising programs, and reaps what they leave, as init does.

It is the subreaper of all that is launched below it: what a killed program leaves is reaped at
once, as on a machine of its own, and whatever is left at the end is one of its descendants.
Programs are forked from it, so that one costs milliseconds and not an interpreter's start.
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
    """The process, from outside. Leave its block, and everything below it is killed."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        self.pid: int = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            {**os.environ, "PYTHONPATH": paths},  # an actor's class is looked for as it is here
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), theirs.fileno())],
        )
        theirs.close()

    def launch(self, **told: Any) -> tuple[int, socket.socket]:
        """Launch a program; return its pid, and the socket over which it obeys."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = array.array("i", [theirs.fileno()])
            message = json.dumps(told).encode()
            self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return int(self._socket.recv(64)), ours

    def descendants(self) -> dict[int, str]:
        """Return the pids and command lines of all that lives below it."""
        return descendants(self.pid)

    def close(self) -> None:
        """End it, and all that is left below it."""
        self._socket.close()
        os.waitpid(self.pid, 0)

    def __enter__(self) -> Cradle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main(fd: int) -> None:
    """Launch what is asked for until nobody is there to ask; then kill all that is left."""
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
                asked.send(str(_fork(asked, message, fds[0])).encode())
                os.close(fds[0])


def _fork(asked: socket.socket, message: bytes, fd: int) -> int:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked.close()
        _actor.main(fd, **json.loads(message))
        os._exit(0)
    return pid


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_all() -> None:
    while left := descendants(os.getpid()):
        for pid in left:  # nobody but us reaps them: they are what they were
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()


if __name__ == "__main__":
    main(int(sys.argv[1]))
