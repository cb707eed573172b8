"""What of the host's files others can't read: a container's root would, being the host's root.

The kernel asks for the owner's rights, and the owner of most of them is root. (In a user namespace
it isn't: there nothing of this is needed.)
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Final

from ..system import lenient

MAX_DIRECTORIES = 4096
"""How many are looked at below one. What is deeper in a larger tree is covered as a whole."""

logger: Final = logging.getLogger("supervisor")


def is_public(path: str) -> bool:
    """Whether everybody can read what is at ``path``, and go into it if it is a directory."""
    try:
        return _is_public(os.stat(path))
    except OSError:
        return False


def secrets_below(
    directory: str, *, levels: int | None = None, remembered: bool = False
) -> Iterator[str]:
    """Yield what below ``directory`` not everybody can read, topmost first; and what is too much.

    Args:
        directory: an absolute path.
        levels: how many levels of directories are looked into; None for all.
        remembered: whether what was seen in a directory is believed for a second, if no file has
            come or gone there: thousands of files take some milliseconds, for each bundle.
    """
    look = partial(_look_once, int(time.monotonic())) if remembered else _look
    waiting = deque([(directory, 1)])
    for _ in range(MAX_DIRECTORIES):
        if not waiting:
            return
        path, level = waiting.popleft()
        secret: Sequence[str] = ()
        directories: Sequence[str] = ()
        with lenient():  # it may have gone
            secret, directories = look(path, identity=_identity(os.stat(path)))
        yield from secret
        if levels is None or level < levels:
            waiting.extend((one, level + 1) for one in directories)
    if waiting:
        logger.warning(
            "%s has more than %d directories: %d of them, from %s on, aren't shown to containers",
            directory,
            MAX_DIRECTORIES,
            len(waiting),
            waiting[0][0],
        )
        yield from (path for path, _ in waiting)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with each file that comes or goes, or is mounted there.

    Two changes within one tick of the clock may have one time: so its size, which a tmpfs has grow
    with each entry.
    """
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, *times, status.st_size, status.st_nlink


def _look(path: str, *, identity: tuple[int, ...] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what in a directory is secret, and its other directories."""
    secret, directories = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue  # what it leads to is shown elsewhere, or not at all
            status = entry.stat(follow_symlinks=False)
            if not _is_public(status):
                secret.append(entry.path)
            elif stat.S_ISDIR(status.st_mode):
                directories.append(entry.path)
    return tuple(sorted(secret)), tuple(sorted(directories))


@lru_cache(maxsize=2 * MAX_DIRECTORIES)
def _look_once(
    second: int, path: str, *, identity: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _look(path)


def _is_public(status: os.stat_result) -> bool:
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & wanted == wanted
