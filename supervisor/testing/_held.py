"""A temporary directory that is removed when the process that made it ends, even by SIGKILL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

from .._leash import keep_temporary
from ..tasks import Opener


@contextlib.contextmanager
def held_directory() -> Iterator[str]:
    """Make a temporary directory for a block outside of Trio.

    A keeper removes the directory if we die.

    Raises:
        ShimNotFound, DiskFull, TooManyFiles: the directory or the keeper can't be made.
    """
    opener = Opener()
    keeper, made = trio.run(keep_temporary)
    try:
        yield made.path
    finally:
        made.remove()
        if not opener.elsewhere():  # in a forked child, the keeper belongs to the parent
            trio.run(keeper.let_go)
