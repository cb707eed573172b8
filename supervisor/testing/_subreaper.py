"""Subreaper: orphans of our descendants become our children.

Source: man 2 prctl, PR_SET_CHILD_SUBREAPER. The setting holds for the whole process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

_GET: Final = 37
_SET: Final = 36


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Be the subreaper during the block; restore the old setting afterwards.

    Raises:
        OSError: the kernel refuses.
    """
    was = ctypes.c_int()
    _prctl(_GET, ctypes.addressof(was))
    _prctl(_SET, 1)
    try:
        yield
    finally:
        _prctl(_SET, was.value)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
