"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from functools import cache

# The same numbers on all machines (the kernel's include/uapi/asm-generic/unistd.h).
OPEN_TREE = 428
MOUNT_SETATTR = 442
_OPENAT2 = 437
_PR_GET_CHILD_SUBREAPER = 37
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_NONBLOCK = os.O_NONBLOCK
_TIMES = struct.Struct("@llll")  # struct itimerspec: the interval, the first time

_HOW = struct.Struct("=QQQ")  # struct open_how


def syscall(number: int, *arguments: object) -> int:
    """Make a system call and return its result.

    Args:
        number: the number of the call, such as `OPEN_TREE`.
        arguments: an int, bytes (the address of a C string), or an object of ctypes.

    Raises:
        OSError: the call failed.
    """
    return _checked(_libc().syscall(ctypes.c_long(number), *arguments))


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open ``path``, relative to ``directory``; ``resolve`` says where the path may lead.

    Returns:
        A descriptor, closed on exec.

    Raises:
        OSError: the call failed: with ELOOP or EXDEV if ``resolve`` forbids where the path leads.

    Source: man 2 openat2.
    """
    how = _HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    return syscall(_OPENAT2, directory, os.fsencode(path), how, ctypes.c_size_t(_HOW.size))


def detach_mount(directory: int, name: str) -> None:
    """Detach what is mounted on the entry ``name`` of the open ``directory``; follow no link.

    Raises:
        OSError: the call failed: with EINVAL if nothing is mounted there, with EPERM for an
            ordinary user.

    Source: man 2 umount.
    """
    path = os.fsencode(f"/proc/self/fd/{directory}/{name}")
    _checked(_libc().umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW))


def is_subreaper() -> bool:
    """Whether orphans among our descendants become our children (man 2 prctl)."""
    told = ctypes.c_int()
    _libc().prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(told), 0, 0, 0)
    return bool(told.value)


def timer() -> int:
    """Make a timer: a descriptor, closed on exec, that becomes readable when the time is up.

    Raises:
        OSError: the call failed.

    Source: man 2 timerfd_create.
    """
    return _checked(_libc().timerfd_create(time.CLOCK_MONOTONIC, _TFD_CLOEXEC | _TFD_NONBLOCK))


def set_timer(fd: int, seconds: float) -> None:
    """Set a timer to ``seconds`` from now, once, in place of any earlier setting.

    Raises:
        OSError: the call failed.
    """
    ns = max(1, int(seconds * 1e9))  # 0 would mean never
    when = _TIMES.pack(0, 0, *divmod(ns, 1_000_000_000))
    _checked(_libc().timerfd_settime(fd, 0, when, None))


def _checked(told: int) -> int:
    if told < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return told


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
