"""The directory that a supervisor keeps its containers in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator

from ._errors import InvalidValue, scarcity
from ._witness import temporary_path

_MODE = 0o711  # a user namespace's root must be able to pass through


@contextlib.contextmanager
def opened_root(path: str | os.PathLike[str] | None) -> Iterator[str]:
    """Open a durable root, or for None name one that is removed at the end of the block.

    Its keeper comes first, and then `make_ephemeral`.

    Yields:
        Its real path.

    Raises:
        InvalidValue: as `_open_durable`.
    """
    if path is not None:
        yield _open_durable(path)
        return
    root = os.path.realpath(temporary_path())
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def make_ephemeral(path: str) -> None:
    """Make a root that was named by `opened_root`.

    Raises:
        DiskFull, OSError: it can't be made.
    """
    try:
        os.mkdir(path, 0o700)  # never somebody else's
        os.chmod(path, _MODE)
    except OSError as error:
        raise scarcity(error) from error


def _open_durable(path: str | os.PathLike[str]) -> str:
    """Return the real path of a durable root, made if it isn't there.

    Raises:
        InvalidValue: it isn't a directory, belongs to somebody else, or others may write to
            it: they could have us run and kill what they like.
    """
    given = os.fspath(path)
    if not isinstance(given, str) or not given or "\0" in given or "\n" in given:
        raise InvalidValue(f"the root {given!r} is no path")
    try:
        os.fsencode(given)
    except UnicodeEncodeError as error:
        raise InvalidValue(f"the root {given!r} is no path") from error
    try:
        os.makedirs(given, mode=_MODE, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidValue(f"the root {given} is not a directory") from error
    except OSError as error:
        raise scarcity(error) from error
    real = os.path.realpath(given)
    status = os.stat(real)
    if status.st_uid != os.geteuid():
        raise InvalidValue(f"the root {given} belongs to uid {status.st_uid}, not to us")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidValue(f"others may write to the root {given}: chmod go-w it")
    return real


def cgroup_for(parent: str, root: str, id: str) -> str:
    """Return a container's ``linux.cgroupsPath``: the same id under two roots has two.

    The hash takes in the directory's own identity, since two mount namespaces may share a
    cgroup hierarchy and have the same path.
    """
    status = os.stat(root)
    identity = f"{root}\0{status.st_dev}\0{status.st_ino}".encode(errors="surrogateescape")
    return f"{parent}/{hashlib.sha256(identity).hexdigest()[:12]}-{id}"
