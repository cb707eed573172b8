"""A directory that is removed with whoever made it, however that ends."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import trio

from .._leash import Keeper
from .._root import make_ephemeral
from .._witness import temporary_path
from ..shim import find_binary


@contextlib.contextmanager
def held_directory() -> Iterator[str]:
    """Make a temporary directory for a block outside of Trio; a keeper removes it, should we die.

    Raises:
        ShimNotFound, DiskFull, TooManyFiles: it can't be had.
    """
    path = temporary_path()
    keeper = Keeper(find_binary("supervisor-keeper"), path, remove_root=True)
    try:
        make_ephemeral(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        trio.run(keeper.let_go)
