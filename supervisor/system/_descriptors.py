"""Descriptors that a forked child must not keep.

A lock and a leash mean *this process lives*. A forked child that doesn't exec (multiprocessing)
would hold both after its parent's death, so the child closes them first. A child that does exec
never has them: they are O_CLOEXEC.

Nor may a child keep our ends of a container's streams: while the child holds the writing end of a
program's input, the program never sees the end of that input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import warnings
from collections.abc import Callable
from typing import Self

import trio

from ._weak import WeakSet

_LAST_STANDARD = 2


class Descriptor:
    """The only owner of a descriptor, which is closed in forked children.

    Attributes:
        fd: the number; -1 after the close.
    """

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        with NO_FORK:
            _OPEN.add(self)

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        with NO_FORK:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {self.fd if self.fd >= 0 else 'closed'}>"

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()


# The one global in this package that changes: a fork copies the whole process, so only the process
# can know what a child has to close.
_OPEN: WeakSet[Descriptor] = WeakSet()

NO_FORK = threading.RLock()
"""While this lock is held no other thread forks. So no child gets a descriptor between open and
registration, or between removal from the set and close."""


def lifted(fd: int) -> int:
    """Return a descriptor with a number above 2 in place of ``fd``, which this function takes over.

    In a program whose standard streams are closed, the next opened file gets one of their numbers.
    A child's own streams would replace such a descriptor of ours, and all that the program prints
    would go into it.

    Raises:
        OSError: no descriptor was left; ``fd`` is closed.
    """
    if fd > _LAST_STANDARD:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
    finally:
        os.close(fd)


def lifted_pipe(flags: int = 0) -> tuple[int, int]:
    """Make a pipe and return the reading end first: closed on exec, both numbers above 2.

    Raises:
        OSError: no descriptors were left; no end is open.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | flags)
    try:
        read_fd = lifted(read_fd)
    except BaseException:
        os.close(write_fd)
        raise
    try:
        return read_fd, lifted(write_fd)
    except BaseException:
        os.close(read_fd)
        raise


def close_in_children(fd: int) -> Descriptor:
    """Take over ``fd``, and close it in every forked child.

    Returns:
        The owner of ``fd`` from now on: keep this object, and close the descriptor only through it.
        (Otherwise the number may belong to another file by then, and the child would close that.)
    """
    return Descriptor(fd)


class Blank:
    """A descriptor that another object owns and closes; forked children don't have it.

    The child has a copy of the owner, a Trio stream, which closes the number too. So in the child
    the null device takes that number.

    Attributes:
        fd: the number; -1 after the close.
    """

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        with NO_FORK:
            _BLANK.add(self)

    def closing(self, close: Callable[[], object]) -> None:
        """Let the owner close the descriptor. A second call only calls ``close``."""
        with NO_FORK:
            self.fd = -1
            close()


_BLANK: WeakSet[Blank] = WeakSet()


def _blank_all() -> None:
    for blank in [blank for blank in _BLANK if blank.fd >= 0]:
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no descriptor is left: closed is better than held
            with contextlib.suppress(OSError):
                os.close(blank.fd)
            continue
        os.dup2(null, blank.fd, inheritable=False)
        os.close(null)


@trio.lowlevel.enable_ki_protection
def _close_all() -> None:
    NO_FORK.release()
    _blank_all()
    for descriptor in list(_OPEN):
        with contextlib.suppress(OSError):  # the child has no caller to report to
            descriptor.close()


os.register_at_fork(
    before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=_close_all
)
