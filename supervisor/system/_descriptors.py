"""Descriptors that a forked child must not keep.

A lock and a leash mean *this process lives*. A child that was forked and doesn't exec
(multiprocessing) would hold them on after its parent's death, so it closes them first
thing. A child that does exec never has them: they are O_CLOEXEC.

Nor must it keep our ends of a container's streams: a program whose input it held would never see
the end of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from ._weak import WeakSet

_LAST_STANDARD = 2


class Descriptor:
    """The only owner of a descriptor, which is closed in forked children.

    Attributes:
        fd: its number; -1 once it is closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        with NO_FORK:
            _OPEN.add(self)

    def close(self) -> None:
        """Close it; the second time nothing happens."""
        with NO_FORK:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {self.fd if self.fd >= 0 else 'closed'}>"

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()


# The one thing in this package that is global and changes: what a fork copies is the
# whole process, so only the process can know what a child has to close.
_OPEN: WeakSet[Descriptor] = WeakSet()

NO_FORK = threading.RLock()
"""While it is held no other thread forks, so that no child gets a descriptor between its
opening and its registration, or between being forgotten and being closed."""


def lifted(fd: int) -> int:
    """Return a descriptor with a number above 2 in place of ``fd``, which it owns from now on.

    A program whose standard streams are closed gets their numbers for whatever is opened next.
    Such a descriptor of ours would be replaced in a child, which has its own streams there; and
    whoever prints would print into it.

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
    """Make a pipe of ours, its reading end first: closed on exec, both numbers above 2.

    Raises:
        OSError: no descriptors were left; none is open.
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
    """Take over ``fd`` and have it closed in every forked child.

    Returns:
        Its owner from now on: keep it, and close the descriptor through nothing else. (The
        number would be somebody else's by then, and the child would close that.)
    """
    return Descriptor(fd)


class Blank:
    """A descriptor that somebody else owns and closes, and that forked children don't have.

    A child's copy of its owner, a Trio stream, closes it too: so its number stays taken there, by
    the null device.

    Attributes:
        fd: its number; -1 once it is closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd: int = fd
        with NO_FORK:
            _BLANK.add(self)

    def closing(self, close: Callable[[], object]) -> None:
        """Have its owner close it; the second time that is all."""
        with NO_FORK:
            self.fd = -1
            close()


_BLANK: WeakSet[Blank] = WeakSet()


def _blank_all() -> None:
    for blank in [blank for blank in _BLANK if blank.fd >= 0]:
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # none was left, so it is better closed than held
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
        with contextlib.suppress(OSError):  # nobody is there to tell
            descriptor.close()


os.register_at_fork(
    before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=_close_all
)
