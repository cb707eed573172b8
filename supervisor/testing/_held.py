"""A directory that is removed with whoever made it, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

from .._leash import keep_temporary
from ..tasks import Opener


@contextlib.contextmanager
def held_directory() -> Iterator[str]:
    """Make a temporary directory for a block outside of Trio; a keeper removes it, should we die.

    Raises:
        ShimNotFound, DiskFull, TooManyFiles: it can't be had.
    """
    opener = Opener()
    keeper, made = trio.run(keep_temporary)
    try:
        yield made.path
    finally:
        made.remove()
        if not opener.elsewhere():  # else it is a parent's
            trio.run(keeper.let_go)
