"""In which process we are: a forked child has all of ours in hand, and nothing of it is its own.

A child of `os.fork` in a Trio task goes on with a copy of that run: all of its tasks, all blocks
that are open. What ends there, with `sys.exit` say, would undo what is its parent's. So whatever
acts knows which process opened it, and in another one does nothing, or says so. What waits there
waits no more. And what the kernel shares with the parent, Trio's epoll and the sockets that wake
it, is replaced: the parent would be woken no more for what the child takes out of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any

import trio

from ..values import SupervisorClosed


class Opener:
    """The process that opened something."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def elsewhere(self) -> bool:
        """Whether this is another process: one that was forked."""
        return os.getpid() != self._pid

    def require(self, container: str | None = None) -> None:
        """Refuse what only the process that opened it may do.

        Raises:
            SupervisorClosed: this is another one.
        """
        if self.elsewhere():
            raise SupervisorClosed(
                f"this is a forked child (pid {os.getpid()}): its supervisor is that of process "
                f"{self._pid}, and only there anything can be done with it",
                container=container,
            )


_RUN: trio.lowlevel.RunVar[Opener | None] = trio.lowlevel.RunVar("supervisor opener")
_SCOPES: trio.lowlevel.RunVar[set[trio.CancelScope] | None] = trio.lowlevel.RunVar(
    "supervisor scopes"
)
_DETACHED: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("supervisor detached")


def note_process() -> None:
    """Take note that this Trio run is this process's; what forks from it isn't it any more."""
    if _RUN.get(None) is None:
        _RUN.set(Opener())


_IMPORTED_BY = os.getpid()


def forked() -> bool:
    """Whether this is a forked child that goes on with a Trio run of its parent's."""
    if os.getpid() == _IMPORTED_BY:  # asked often, and mostly so
        return False
    try:
        opener = _RUN.get(None)
    except RuntimeError:  # no Trio here
        return False
    if opener is None or not opener.elsewhere():
        return False
    _detach()
    return True


def refuse_forked() -> None:
    """Refuse to act for what is a parent's.

    Raises:
        SupervisorClosed: this is a forked child that goes on with a Trio run of its parent's.
    """
    opener = _RUN.get(None) if forked() else None
    if opener is not None:
        opener.require()


def open_scopes() -> set[trio.CancelScope]:
    """Return the scopes of this run that a forked child's copy of it cancels first thing.

    They are those of our tasks, of what waits, and of what undoes something, shielded.
    """
    found = _SCOPES.get(None)
    if found is None:
        found = set()
        _SCOPES.set(found)
    return found


def _detach() -> None:
    """Let a forked child's copy of a run go its own way, and to its end at once; the first time."""
    if _DETACHED.get(0) == os.getpid():
        return
    _DETACHED.set(os.getpid())
    with contextlib.suppress(AttributeError, OSError, ValueError):
        _replace_shared()
    for scope in tuple(open_scopes()):
        scope.cancel()


def _replace_shared() -> None:
    """Give Trio's loop an epoll and wake-up sockets of its own in place of its parent's.

    In the epoll nothing else is registered: what the parent's tasks wait for isn't the child's to
    take. Trio has no name for these things that is public, and a test that tells of a Trio which
    keeps them elsewhere; there the child goes on with its parent's.
    """
    run: Any = trio._core._run
    runner = run.GLOBAL_RUN_CONTEXT.runner
    poller = runner.io_manager
    woken, forced = runner.entry_queue.wakeup, poller._force_wakeup
    with select.epoll() as fresh:
        for pair in (woken, forced):
            _replace_pair(pair.wakeup_sock, pair.write_sock)
        fresh.register(forced.wakeup_sock, select.EPOLLIN)
        fresh.register(woken.wakeup_sock, select.EPOLLIN | select.EPOLLONESHOT)
        os.dup2(fresh.fileno(), poller._epoll.fileno(), inheritable=False)


def _replace_pair(reading: socket.socket, writing: socket.socket) -> None:
    """Put a fresh pair of connected sockets at the numbers of another."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for fresh, old in ((ours, reading), (theirs, writing)):
            fresh.setblocking(False)
            os.dup2(fresh.fileno(), old.fileno(), inheritable=False)


@trio.lowlevel.enable_ki_protection
def _after_fork() -> None:
    forked()  # what is raised in such a hook is lost


os.register_at_fork(after_in_child=_after_fork)
