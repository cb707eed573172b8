"""What of the host's files others can't read: a container's root would, being the host's root.

The kernel asks for the owner's rights, and the owner of most of them is root. (In a user namespace
it isn't: there nothing of this is needed.)
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from functools import lru_cache

MAX_DIRECTORIES = 4096
"""How many are looked at below one. What is deeper in a larger tree isn't."""


def is_public(path: str) -> bool:
    """Whether everybody can read what is at ``path``, and go into it if it is a directory."""
    try:
        return _is_public(os.stat(path))
    except OSError:
        return False


def secrets_below(directory: str, *, levels: int | None = None) -> Iterator[str]:
    """Yield what below ``directory`` not everybody can read, topmost first.

    Args:
        directory: an absolute path.
        levels: how many levels of directories are looked into; None for all.
    """
    waiting = deque([(directory, 1)])
    for _ in range(MAX_DIRECTORIES):
        if not waiting:
            return
        path, level = waiting.popleft()
        try:
            status = os.lstat(path)
            secret, directories = _look(path, _identity(status))
        except OSError:
            continue  # it has gone
        yield from secret
        if levels is None or level < levels:
            waiting.extend((one, level + 1) for one in directories)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with each file that comes or goes, or is mounted there."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=2 * MAX_DIRECTORIES)
def _look(path: str, identity: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what in a directory is secret, and its other directories."""
    secret, directories = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                continue  # what it leads to is shown elsewhere, or not at all
            if not _is_public(status):
                secret.append(entry.path)
            elif stat.S_ISDIR(status.st_mode):
                directories.append(entry.path)
    return tuple(sorted(secret)), tuple(sorted(directories))


def _is_public(status: os.stat_result) -> bool:
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
    return status.st_mode & wanted == wanted
