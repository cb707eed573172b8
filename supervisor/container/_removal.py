"""Removing whole directories of ours, also the temporary ones that killed supervisors left."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Final

from ..system import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Lock, distrust_directory, openat2
from ..tasks import forked
from ..values import StateCorrupt, raise_if_scarce
from ._directories import NEW

_DELETED: Final = ".deleted-"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def sweep(directory: str) -> None:
    """Remove the temporary directories that killed supervisors left in a root or a container.

    A directory that is being made may have no held lock yet: if we remove it then, the other
    supervisor makes another one. Two supervisors may remove the same directory together.

    Raises:
        TooManyFiles, OSError: the directory can't be listed.
    """
    try:
        with os.scandir(directory) as entries:
            found = [entry.path for entry in entries if entry.name.startswith((NEW, _DELETED))]
    except OSError as error:
        raise_if_scarce(error)
        raise
    for path in found:
        with contextlib.suppress(OSError, StateCorrupt):  # also a lock with another owner
            if distrust_directory(path) is not None:
                continue  # the directory belongs to another user
            if os.path.basename(path).startswith(_DELETED):
                _remove_tree(path)
            else:
                _sweep_new(path)


def _sweep_new(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)  # the lock is the first file in there
        return
    lock = Lock.take(os.path.join(path, "lock"))
    if lock is not None:  # and the maker can't take the lock any more
        with lock:
            remove_directory(path)


def remove_directory(path: str) -> None:
    """Remove a directory of ours: renamed away first, so that no program sees half of it."""
    if forked():
        return
    doomed = os.path.join(os.path.dirname(path), f"{_DELETED}{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        _remove_tree(doomed)


def _remove_tree(path: str) -> None:
    """Remove a directory by descriptors, so that no change of the tree can lead outside.

    Files that can't be removed, and mounts, are left for the next open.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, _DIRECTORY | os.O_CLOEXEC)
        try:
            _empty(fd)
        finally:
            os.close(fd)
        os.rmdir(path)


def _empty(directory: int) -> None:
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                _remove_below(directory, entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)


def _remove_below(directory: int, name: str) -> None:
    fd = openat2(directory, name, _DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)
