"""What a keeper still has to remove, as reported to people: containers, cgroups, directories."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..state import RootLayout
from ..system import distrust_directory, held

_LIST_BYTES: Final = 64 * 1024

Remains = Mapping[str, Sequence[str]]

logger: Final = logging.getLogger("supervisor")


def remains(root: str) -> Remains:
    """Return the existing paths of each leashed container without a supervisor, by id."""
    found = {}
    with contextlib.suppress(OSError):  # just being removed
        for container in RootLayout(root).containers():
            groups = tuple(_groups(container.cleanup))
            if groups and distrust_directory(container.path) is None and not held(container.lock):
                found[container.id] = (*filter(os.path.lexists, groups), container.path)
    return found


def still_there(before: Remains) -> Remains:
    """Return the paths of ``before`` that still exist."""
    now = {id: [path for path in paths if os.path.lexists(path)] for id, paths in before.items()}
    return {id: paths for id, paths in now.items() if paths}


def tell(root: str, left: Remains, *, at_work: bool) -> None:
    """Log what is left at the end of a supervisor's block."""
    if not left:
        return
    keeper = "its keeper is still at work on them" if at_work else "its keeper has ended"
    listed = "; ".join(f"container {id!r}: {', '.join(paths)}" for id, paths in left.items())
    logger.warning("%s: not all could be removed, and %s. Left: %s", root, keeper, listed)


def _groups(path: str) -> Iterator[str]:
    """Yield "" and the cgroups in a keeper's list; nothing if there is no list."""
    try:
        with open(path, "rb", opener=_plainly) as file:
            text = os.fsdecode(file.read(_LIST_BYTES))
    except OSError:
        return
    yield ""  # there is a list
    for record in text.split("\0\0"):
        verb, *words = record.split("\0")
        if verb == "cgroup":
            yield from words


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
