"""Locks that end with the process that holds them: flock on a file that stays.

Source: flock(2). A lock belongs to the open file description. So a child that inherits the
descriptor holds the lock too, and the lock ends when the last copy is closed.
"""

from __future__ import annotations

import fcntl
import os
import stat

from ..values import StateCorrupt, raise_if_scarce
from ._descriptors import NO_FORK, Descriptor, lifted
from ._files import oddity, require_own

_TRIES = 100
_TO_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_TO_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MODE = 0o600


class Lock(Descriptor):
    """A lock that this process holds, made by `take`: the descriptor of the locked file.

    Forked children don't keep the lock. A child that is to hold the lock, too, inherits ``fd``.
    """

    @classmethod
    def take(cls, path: str) -> Lock | None:
        """Lock the file at ``path`` without waiting; make the file if it isn't there.

        Returns:
            None if the lock is already held, by this process or another.

        Raises:
            FileNotFoundError: the file's directory isn't there, or not any more.
            TooManyFiles: no descriptor is left.
            StateCorrupt: not a file that only we may open (others could hold us up), or one that we
                may not open either.
            OSError: the machine can't open the file.
        """
        for _ in range(_TRIES):
            lock = cls._open(path)
            try:
                locked = _lock(lock.fd)
                # An earlier holder may have moved the file or the directory away.
                if locked and _is_at(lock.fd, path):
                    return lock
            except BaseException:
                lock.close()
                raise
            lock.close()
            if not locked:
                break
        return None

    @classmethod
    def _open(cls, path: str) -> Lock:
        try:
            with NO_FORK:
                lock = cls(lifted(_open_file(path)))
        except OSError as error:
            raise_if_scarce(error)
            raise
        try:
            status = require_own(lock.fd, path)
            if stat.S_IMODE(status.st_mode) != _MODE:  # a umask may take even our own bits
                os.fchmod(lock.fd, _MODE)
        except BaseException:
            lock.close()
            raise
        return lock

    def release(self) -> None:
        """Release the lock. A second call does nothing.

        This only closes the descriptor: a child that inherited the descriptor still holds the lock
        (and so does a child just forked, until its exec).
        """
        self.close()


def held(path: str) -> bool:
    """Return whether the lock on the file at ``path`` is held.

    The look acquires a shared lock for an instant. That doesn't mislead `Lock.take`.

    Returns:
        Also False if the file isn't there, or others may have made it: a lock on such a file means
        nothing.

    Raises:
        TooManyFiles: no descriptor is left.
        OSError: the machine can't open the file.
    """
    with NO_FORK:  # a child that is forked meanwhile would keep the shared lock
        try:
            fd = os.open(path, _TO_LOOK)
        except FileNotFoundError:
            return False
        except OSError as error:
            if oddity(error, path) is error:
                raise_if_scarce(error)
                raise
            return False
        try:
            require_own(fd, path)
            return not _flock(fd, fcntl.LOCK_SH)
        except StateCorrupt:
            return False
        finally:
            os.close(fd)


def _open_file(path: str) -> int:
    try:
        return os.open(path, _TO_LOCK, _MODE)
    except OSError as error:
        raise oddity(error, path) from error


def _lock(fd: int) -> bool:
    """Acquire the lock, unless another process holds it exclusively."""
    for _ in range(_TRIES):
        if _flock(fd, fcntl.LOCK_EX):
            return True
        # If a shared lock is possible, only a look (`held`) was in the way.
        if not _flock(fd, fcntl.LOCK_SH):
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.sched_yield()
    return False


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
