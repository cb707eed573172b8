"""Forked children: what a child of os.fork must not do with its parent's containers and Trio run.

A child of `os.fork` in a Trio task goes on with a copy of that run: with all tasks and all open
blocks. If a block ends there, with `sys.exit` say, its clean-up would undo what belongs to the
parent. So each object that acts knows which process opened it; in another process it does nothing,
or raises an error. Waits end at once there. And what the kernel shares with the parent, Trio's
epoll and wake-up sockets, is replaced: otherwise the parent would miss the events that the child
reads.
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
        """Whether the current process is another one, a forked child."""
        return os.getpid() != self._pid

    def require(self, container: str | None = None) -> None:
        """Refuse what only the opening process may do.

        Raises:
            SupervisorClosed: the current process is another one.
        """
        if self.elsewhere():
            raise SupervisorClosed(
                f"this is a forked child (pid {os.getpid()}): its supervisor belongs to process "
                f"{self._pid}, and can be used only there",
                container=container,
            )


_RUN: trio.lowlevel.RunVar[Opener | None] = trio.lowlevel.RunVar("supervisor opener")
_SCOPES: trio.lowlevel.RunVar[set[trio.CancelScope] | None] = trio.lowlevel.RunVar(
    "supervisor scopes"
)
_DETACHED: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("supervisor detached")


def note_process() -> None:
    """Note that this Trio run belongs to this process; forked children are other processes."""
    if _RUN.get(None) is None:
        _RUN.set(Opener())


_IMPORTED_BY = os.getpid()


def forked() -> bool:
    """Whether this is a forked child that goes on with its parent's Trio run."""
    if os.getpid() == _IMPORTED_BY:  # called often, and mostly true
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
    """Refuse to act on what belongs to the parent.

    Raises:
        SupervisorClosed: this is a forked child that goes on with its parent's Trio run.
    """
    opener = _RUN.get(None) if forked() else None
    if opener is not None:
        opener.require()


def open_scopes() -> set[trio.CancelScope]:
    """Return the scopes of this run that a forked child's copy of the run cancels first.

    These are the scopes of our tasks, of waits, and of shielded clean-ups.
    """
    found = _SCOPES.get(None)
    if found is None:
        found = set()
        _SCOPES.set(found)
    return found


def _detach() -> None:
    """Separate a forked child's copy of a run from the parent, and cancel it; on the first call."""
    if _DETACHED.get(0) == os.getpid():
        return
    _DETACHED.set(os.getpid())
    with contextlib.suppress(AttributeError, OSError, ValueError):
        _replace_shared()
    for scope in tuple(open_scopes()):
        scope.cancel()


def _replace_shared() -> None:
    """Give Trio's loop a new epoll and new wake-up sockets in place of the parent's.

    The new epoll has nothing else registered: events that the parent's tasks wait for aren't the
    child's to take. Trio has no public names for these objects. A test notices a Trio that keeps
    them elsewhere; with such a Trio the child goes on with the parent's.
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
    """Put a new pair of connected sockets at the numbers of an old pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for fresh, old in ((ours, reading), (theirs, writing)):
            fresh.setblocking(False)
            os.dup2(fresh.fileno(), old.fileno(), inheritable=False)


@trio.lowlevel.enable_ki_protection
def _after_fork() -> None:
    forked()  # an exception in such a hook is lost


os.register_at_fork(after_in_child=_after_fork)
