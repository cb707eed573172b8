"""The null device for containers, which no container can change.

Without a user namespace, a container's root is the host's root, and could change the mode and the
owner of the host's ``/dev/null``. So a container gets a private, read-only clone of the device's
mount: there a program can still write to the device, but can't change the mode or the owner.

Source: man 2 open_tree, mount_setattr (Linux 5.12).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat

from ..system import MOUNT_SETATTR, OPEN_TREE, Descriptor, close_in_children, syscall
from ..values import InfrastructureError, raise_if_scarce

_PATH = "/dev/null"
_NUMBER = os.makedev(1, 3)
_AFTER_STREAMS = 3

_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 0x1
_RDONLY_NOSUID_NOEXEC = 0x1 | 0x2 | 0x8
_MS_PRIVATE = 1 << 18


class _Attributes(ctypes.Structure):
    """``struct mount_attr``."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class NullDevice:
    """The null device of one supervisor's containers, opened at the first use."""

    def __init__(self) -> None:
        self._found: Descriptor | None = None
        self._cloned: Descriptor | None = None

    def shared(self) -> int | None:
        """Return a descriptor from which the shim opens the device for a container, for `Stdio`.

        The caller doesn't close the descriptor. For an ordinary user this is ``/dev/null``:
        their containers can't change the device.

        Returns:
            None if we are root and can't clone the mount: then no container may get the device.

        Raises:
            InfrastructureError: ``/dev/null`` isn't the null device.
            TooManyFiles: no descriptor was left.
        """
        if self._cloned is not None:
            return self._cloned.fd
        found = self._find()
        if os.geteuid() != 0:
            return found.fd
        self._cloned = _clone(found.fd)
        return None if self._cloned is None else self._cloned.fd

    def open(self, flags: int) -> int:
        """Open the host's device, for the supervisor.
        Raises: as `shared`.
        """
        try:
            return os.open(f"/proc/self/fd/{self._find().fd}", flags | os.O_CLOEXEC)
        except OSError as error:
            raise_if_scarce(error)
            raise

    def close(self) -> None:
        """Close our descriptors; the processes that have the device open keep it."""
        for held in (self._found, self._cloned):
            if held is not None:
                held.close()
        self._found = self._cloned = None

    def _find(self) -> Descriptor:
        if self._found is None:
            self._found = _find()
        return self._found


def _find() -> Descriptor:
    try:
        opened = os.open(_PATH, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _broken() from error
    except OSError as error:
        raise_if_scarce(error)
        raise
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, opened)
        status = os.fstat(opened)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NUMBER:
            raise _broken()
        return _kept(opened)


def _broken() -> InfrastructureError:
    return InfrastructureError(
        f"{_PATH} isn't the null device (character device 1:3): make it anew, with "
        f"`rm -f {_PATH}; mknod -m 666 {_PATH} c 1 3`"
    )


def _clone(found: int) -> Descriptor | None:
    """Return a private mount of the device, or None if the kernel can't make the mount."""
    with contextlib.ExitStack() as undo, contextlib.suppress(OSError):
        mount = syscall(OPEN_TREE, found, b"", _OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC)
        undo.callback(os.close, mount)
        wanted = _Attributes(attr_set=_RDONLY_NOSUID_NOEXEC, propagation=_MS_PRIVATE)
        size = ctypes.c_size_t(ctypes.sizeof(wanted))
        syscall(MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size)
        return _kept(mount)
    return None


def _kept(fd: int) -> Descriptor:
    """Return a copy of a descriptor above 2: a child's standard streams are 0 to 2."""
    try:
        return close_in_children(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _AFTER_STREAMS))
    except OSError as error:
        raise_if_scarce(error)
        raise
