"""Wait until something happens in a directory (man 7 inotify)."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import trio

from ..system import lifted
from ._within import nap

_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_EVENTS_BYTES = 64 * 1024
_POLL_SECONDS = 0.05


class DirectoryWatch:
    """Sees writes, renames and new files in a directory, from construction on.

    A user has few inotify instances: without one, `wait` just sleeps for a moment.
    """

    def __init__(self, path: str) -> None:
        self._fd = _libc().inotify_init1(_FLAGS)
        if self._fd >= 0:
            self._fd = lifted(self._fd)
        wanted = _MODIFY | _MOVED_TO | _CREATE | _DELETE_SELF
        if self._fd >= 0 and _libc().inotify_add_watch(self._fd, os.fsencode(path), wanted) < 0:
            self.close()

    async def wait(self) -> None:
        """Return when something has, or may have, happened since the last call."""
        if self._fd < 0:
            await nap(_POLL_SECONDS, still=False)
            return
        await trio.lowlevel.wait_readable(self._fd)
        os.read(self._fd, _EVENTS_BYTES)

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
