"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

# The same numbers on all machines (the kernel's include/uapi/asm-generic/unistd.h).
OPEN_TREE = 428
OPENAT2 = 437
MOUNT_SETATTR = 442


def syscall(number: int, *arguments: object) -> int:
    """Make a system call and return what it returns.

    Args:
        number: one of those above.
        arguments: an int, bytes (the address of a C string), or an object of ctypes.

    Raises:
        OSError: it failed.
    """
    told: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    if told < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return told
