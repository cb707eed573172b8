"""The directory that a supervisor keeps its containers in."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile

from ._errors import InvalidValue, scarcity

_MODE = 0o711  # a user namespace's root must be able to pass through


def make_ephemeral_root() -> str:
    """Make a root that is removed with its supervisor."""
    try:
        path = tempfile.mkdtemp(prefix="trio-supervisor-")
        os.chmod(path, _MODE)
    except OSError as error:
        raise scarcity(error) from error
    return os.path.realpath(path)


def open_root(path: str | os.PathLike[str]) -> str:
    """Return the real path of a durable root, made if it isn't there.

    Raises:
        InvalidValue: it isn't a directory, belongs to somebody else, or others may write to
            it: they could have us run and kill what they like.
    """
    given = os.fspath(path)
    if not isinstance(given, str) or not given or "\0" in given or "\n" in given:
        raise InvalidValue(f"the root {given!r} is no path")
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


def remove_root(path: str) -> None:
    """Remove an ephemeral root and all that is in it."""
    shutil.rmtree(path, ignore_errors=True)


def cgroup_for(parent: str, root: str, id: str) -> str:
    """Return a container's ``linux.cgroupsPath``: the same id under two roots has two.

    The hash takes in the directory's own identity, since two mount namespaces may share a
    cgroup hierarchy and have the same path.
    """
    status = os.stat(root)
    identity = f"{root}\0{status.st_dev}\0{status.st_ino}".encode(errors="surrogateescape")
    return f"{parent}/{hashlib.sha256(identity).hexdigest()[:12]}-{id}"
