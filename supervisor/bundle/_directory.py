"""The directory that a bundle is written to: the user's, or a temporary one of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator

import attrs

from ..directories import Temporary, mounted_below
from ..system import PASSABLE, scarce
from ..values import InvalidValue, misplaced

logger = logging.getLogger(__name__)


@attrs.frozen
class Made:
    """The directory of a new bundle.

    Attributes:
        path: its path.
        held: keeps those who sweep temporary files off it, where that is needed.
    """

    path: str
    held: Temporary | None = None

    def close(self) -> None:
        """Let go of it; the directory stays."""
        if self.held is not None:
            self.held.close()


@contextlib.contextmanager
def made_directory(path: str | None) -> Iterator[Made]:
    """Make the directory for a bundle; if the block fails, nothing of it is left.

    Args:
        path: where; parents are made too. None for a temporary directory.

    Raises:
        InvalidValue: there is a bundle already, or something else that is no directory.
        DiskFull: no space.
        OSError: it can't be made.
    """
    with scarce():
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


def _make_temporary() -> Made:
    made = Temporary.make()
    if made.may_be_swept:
        return Made(made.path, made)
    made.close()  # a descriptor less for each bundle
    return Made(made.path)


def _make(path: str) -> bool:
    """Make the directory at ``path``; returns whether it is new."""
    if os.path.lexists(os.path.join(path, "config.json")):
        raise InvalidValue(f"path: there is a bundle at {path} already: load it, or remove it")
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
    """Remove a temporary bundle, in the process that made it only: a forked child has it on loan.

    It is left where it is while something is mounted below it: removing would go on into that,
    which may be the host's /usr.
    """
    if os.getpid() == owner_pid:
        _remove(made.path)
        made.close()


def _remove(directory: str) -> None:
    try:
        in_use = mounted_below(directory)
    except OSError:  # no descriptor is left to look with
        in_use = True
    if in_use:
        logger.warning("%s is left behind: something may be mounted in it", directory)
        return
    shutil.rmtree(directory, ignore_errors=True)
