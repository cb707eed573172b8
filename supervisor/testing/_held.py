"""A directory that is removed with whoever made it, however that ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

from .._leash import Keeper
from .._temporary import Temporary
from ..shim import find_binary


@contextlib.contextmanager
def held_directory() -> Iterator[str]:
    """Make a temporary directory for a block outside of Trio; a keeper removes it, should we die.

    Raises:
        ShimNotFound, DiskFull, TooManyFiles: it can't be had.
    """
    with Temporary.make() as made:
        keeper = Keeper(find_binary("supervisor-keeper"), made.path, made.fd, remove_root=True)
        try:
            trio.run(keeper.wait_ready)
            yield made.path
        finally:
            made.remove()
            trio.run(keeper.let_go)
