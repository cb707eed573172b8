"""Make and remove the directory of a bundle: the caller's, or a temporary one."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator

import attrs

from ..directories import Temporary, mounted_below
from ..system import PASSABLE
from ..values import InvalidValue, misplaced, raise_if_scarce

logger = logging.getLogger(__name__)


@attrs.frozen
class Made:
    """The directory of a new bundle.

    Attributes:
        path: the directory's path.
        held: the lock that keeps systemd-tmpfiles and the like off the directory, if needed.
    """

    path: str
    held: Temporary | None = None

    def close(self) -> None:
        """Release the lock; the directory stays."""
        if self.held is not None:
            self.held.close()


@contextlib.contextmanager
def made_directory(path: str | None) -> Iterator[Made]:
    """Make the directory for a bundle; if the block fails, all that was made there is removed.

    Args:
        path: the directory's path; parents are made, too. None for a temporary directory.

    Raises:
        InvalidValue: the path has a bundle already, or isn't a directory.
        DiskFull: no space.
        OSError: the directory can't be made.
    """
    try:
        made, ours = (_make_temporary(), True) if path is None else (Made(path), _make(path))
        before = set() if ours else set(os.listdir(made.path))
        try:
            if ours:
                os.chmod(made.path, PASSABLE)
            yield made
        except BaseException:
            _undo(made.path, ours=ours, before=before)
            made.close()
            raise
    except OSError as error:
        raise_if_scarce(error)
        raise


def _make_temporary() -> Made:
    made = Temporary.make()
    if made.may_be_swept:
        return Made(made.path, made)
    made.close()  # saves one descriptor for each bundle
    return Made(made.path)


def _make(path: str) -> bool:
    """Make the directory at ``path``; return whether the directory is new."""
    if os.path.lexists(os.path.join(path, "config.json")):
        raise InvalidValue(
            f"path: there is a bundle at {path} already: load the bundle, or remove the directory"
        )
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, PASSABLE)
    except (FileExistsError, NotADirectoryError):
        if not os.path.isdir(path):
            raise InvalidValue(f"path: {path} is not a directory") from None
        return False
    except OSError as error:
        raise misplaced(error, f"path: no bundle can be written to {path:.300}") from error
    return True


def _undo(directory: str, *, ours: bool, before: set[str]) -> None:
    if ours:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for name in set(os.listdir(directory)) - before:
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)


def remove_owned(made: Made, owner_pid: int) -> None:
    """Remove a temporary bundle, if this process made the bundle; a forked child doesn't.

    While something is mounted below, the directory stays: the removal would go on into the mount,
    which may be the host's /usr.
    """
    if os.getpid() == owner_pid:
        _remove(made.path)
        made.close()


def _remove(directory: str) -> None:
    try:
        in_use = mounted_below(directory)
    except OSError:  # no descriptor is left to look
        in_use = True
    if in_use:
        logger.warning("%s is left behind: something may be mounted inside", directory)
        return
    shutil.rmtree(directory, ignore_errors=True)
