"""A watch over all processes: each shim must record the exit status soon after the end.

A shim that was stopped, say, doesn't record it. And the zombie of an exec keeps the container's pid
namespace, so that init can't end either. One task and one epoll watch all processes: a process
costs no task of its own, and no wake-up before its end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator

import trio

from ..system import lifted
from ..tasks import expiring, forked
from ..values import raise_if_scarce
from ._pidfd import PidFd


class Patrol:
    """Notices processes whose exit status isn't recorded within ``seconds`` of their end.

    Raises:
        TooManyFiles: no descriptor was left.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        try:
            self._epoll = _epoll()
        except OSError as error:
            raise_if_scarce(error)
            raise
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._ended: deque[tuple[float, int, int]] = deque()  # holds no references
        self._serials = itertools.count()

    @contextlib.contextmanager
    def watching(self, process: PidFd, overdue: Callable[[], None]) -> Iterator[None]:
        """Call ``overdue`` if the block still runs ``seconds`` after the process's end."""
        fd = process.fd
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        self._watched[fd] = next(self._serials), overdue
        try:
            yield
        finally:
            del self._watched[fd]
            if not forked():  # the parent has the same epoll
                self._epoll.unregister(fd)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with expiring() as expire:
                if self._ended:
                    expire(max(0.0, self._ended[0][0] - time.monotonic()))
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._look()

    def close(self) -> None:
        """Close the descriptor, when nothing is watched any more."""
        self._epoll.close()

    def _look(self) -> None:
        if forked():
            return
        now = time.monotonic()
        for fd, _ in self._epoll.poll(0):
            self._ended.append((now + self._seconds, fd, self._watched[fd][0]))
        while self._ended and self._ended[0][0] <= now:
            _, fd, serial = self._ended.popleft()
            current, overdue = self._watched.get(fd, (None, None))
            if current == serial and overdue is not None:
                overdue()


def _epoll() -> select.epoll:
    with select.epoll() as first:  # may have the number of a closed standard stream
        return select.epoll.fromfd(lifted(os.dup(first.fileno())))
