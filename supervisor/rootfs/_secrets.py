"""Host files that not all users can read: a container's root could, being the host's root.

The kernel checks the owner's permissions, and root owns most of these files. (In a user namespace
the container's root is another user: there this module isn't needed.)
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

from ..values import raise_if_scarce

MAX_DIRECTORIES = 4096
"""How many directories are searched below one. In a larger tree the rest is covered whole."""

logger: Final = logging.getLogger("supervisor")


def is_public(path: str) -> bool:
    """Whether all users can read ``path``, and enter it if ``path`` is a directory."""
    try:
        return _is_public(os.stat(path))
    except OSError:
        return False


def secrets_below(
    directory: str, *, levels: int | None = None, remembered: bool = False
) -> Iterator[str]:
    """Yield paths below ``directory`` that not all users can read, top first; and the unsearched.

    Args:
        directory: an absolute path.
        levels: how many levels of directories to search; None for all.
        remembered: whether the result for a directory is reused for a second, if no file has come
            or gone there: a search of thousands of files takes some milliseconds, for each bundle.
    """
    look = partial(_look_once, int(time.monotonic())) if remembered else _look
    waiting = deque([(directory, 1)])
    for _ in range(MAX_DIRECTORIES):
        if not waiting:
            return
        path, level = waiting.popleft()
        secret: Sequence[str] = ()
        directories: Sequence[str] = ()
        try:
            secret, directories = look(path, identity=_identity(os.stat(path)))
        except OSError as error:  # may have gone
            raise_if_scarce(error)
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
    """Return values that change when a file comes, goes, or is mounted there.

    Two changes within one tick of the clock may have one time. So the size counts too: on a tmpfs a
    directory grows with each entry.
    """
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, *times, status.st_size, status.st_nlink


def _look(path: str, *, identity: tuple[int, ...] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the secret entries of a directory, and the public subdirectories."""
    secret, directories = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue  # the link's target is shown elsewhere, or not at all
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
