"""Watch that every shim records the end of its process: one task and one epoll for all of them.

A shim that was stopped, say, doesn't; and an exec's zombie holds its container's pid namespace, so
that init couldn't end either. A process costs no task of its own here, and no wake-up before its
end.
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
from ..values import scarcity
from ._pidfd import PidFd


class Patrol:
    """Notices processes that have ended, and whose end isn't recorded within ``seconds``.

    Raises:
        TooManyFiles: no descriptor was left for it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        try:
            self._epoll = _epoll()
        except OSError as error:
            raise scarcity(error) from error
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._ended: deque[tuple[float, int, int]] = deque()  # keeps nobody alive
        self._serials = itertools.count()

    @contextlib.contextmanager
    def watching(self, process: PidFd, overdue: Callable[[], None]) -> Iterator[None]:
        """Call ``overdue`` if the block is still under way ``seconds`` after the process's end."""
        fd = process.fd
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        self._watched[fd] = next(self._serials), overdue
        try:
            yield
        finally:
            del self._watched[fd]
            if not forked():  # the epoll is its parent's too
                self._epoll.unregister(fd)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            with expiring() as expire:
                if self._ended:
                    expire(max(0.0, self._ended[0][0] - time.monotonic()))
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._look()

    def close(self) -> None:
        """Close its descriptor, when nothing is watched any more."""
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
    with select.epoll() as first:  # perhaps at the number of a standard stream that was closed
        return select.epoll.fromfd(lifted(os.dup(first.fileno())))
