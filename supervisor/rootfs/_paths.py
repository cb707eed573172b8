"""Paths as runtimes get them: without symbolic links, which runc refuses in a root's path."""

from __future__ import annotations

import os

from ..values import raise_if_scarce


def real_path(path: str) -> str | None:
    """Return the real path of a file as the kernel knows it; None if there is no file yet.

    Each create calls this, and `os.path.realpath` would look at each part separately.

    Raises:
        TooManyFiles: no descriptor was left for the look.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_if_scarce(error)
        return os.path.realpath(path)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
