"""In which process we are: a forked child has all of ours in hand, and nothing of it is its own.

A child of `os.fork` in a Trio task goes on with a copy of that run: all of its tasks, all blocks
that are open. What ends there, with `sys.exit` say, would undo what is its parent's. So whatever
acts knows which process opened it, and in another one does nothing, or says so. And what the
kernel shares with the parent, Trio's epoll, is replaced: the parent would be woken no more for what
the child unregisters in it.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import Any

import trio

from ._errors import SupervisorClosed


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


def forked() -> bool:
    """Whether this is a forked child that goes on with a Trio run of its parent's."""
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


def shields() -> set[trio.CancelScope]:
    """Return the open scopes that keep this run's tasks from being cancelled."""
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
    _replace_epoll()
    for scope in tuple(shields()):
        scope.cancel()  # whoever undoes something is done with it


def _replace_epoll() -> None:
    """Give Trio's loop an epoll of its own in place of its parent's.

    In it nothing is registered: what the parent's tasks wait for isn't the child's to take.
    A Trio that keeps it elsewhere goes on with its parent's.
    """
    run: Any = trio._core._run
    with contextlib.suppress(AttributeError, OSError, ValueError), select.epoll() as fresh:
        runner = run.GLOBAL_RUN_CONTEXT.runner
        shared = runner.io_manager._epoll.fileno()
        fresh.register(runner.io_manager._force_wakeup_fd, select.EPOLLIN)
        once = select.EPOLLIN | select.EPOLLONESHOT
        fresh.register(runner.entry_queue.wakeup.wakeup_sock, once)  # what finalizers need
        os.dup2(fresh.fileno(), shared, inheritable=False)


os.register_at_fork(after_in_child=forked)
