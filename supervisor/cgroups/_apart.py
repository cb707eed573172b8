"""A cgroup beside those of the containers, for what must outlive a program: shims and keepers.

A service manager ends a program by killing everything in its cgroup. What is in another one lives
on, and ends the containers in good order, or waits for the next program that supervises them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import trio

from ..tasks import forked, nap, undoing
from ._hierarchies import Hierarchies
from ._mounts import Mount

_SUFFIX = ".shims"
_MODE = 0o755
_TRIES = 20
_RETRY_SECONDS = 0.001


@contextlib.asynccontextmanager
async def group_apart(hierarchies: Hierarchies, parent: str) -> AsyncIterator[Sequence[str]]:
    """Make that group in every hierarchy where we may; at the end remove it where it is empty.

    All supervisors with the same cgroup parent share it. Whoever is on his way into it makes it
    again (native/cgroup.c).

    Args:
        hierarchies: the mounted cgroups.
        parent: the cgroup that the containers' own are in. The group is beside it, since whoever
            freezes or empties that means containers.

    Cancellation: removing it is shielded, and takes some milliseconds at most.

    Yields:
        The files by which a process gets in there: ``cgroup.procs``, by hierarchy.
    """
    group = parent + _SUFFIX
    ways = [way for mount in hierarchies.writable if (way := _make(mount, group)) is not None]
    try:
        yield ways
    finally:
        if not forked():  # else its parent's keeper may be on its way into it
            await _remove_all(ways)


@undoing
async def _remove_all(ways: Sequence[str]) -> None:
    with trio.CancelScope(shield=True):
        for way in ways:
            await _remove(way)


async def _remove(way: str) -> None:
    """Remove a group if nobody is in it; who has just ended is in the way for a moment."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(way))
            return
        if not _is_empty(way):
            return
        await nap(_RETRY_SECONDS)


def _is_empty(way: str) -> bool:
    try:
        with open(way, encoding="utf-8") as file:
            return file.readline() == ""
    except OSError:  # somebody else has removed it
        return False


def _make(mount: Mount, group: str) -> str | None:
    """Make a group in one hierarchy; return its ``cgroup.procs``, or None if we may not."""
    directory = mount.point
    for name in group.strip("/").split("/"):
        directory = os.path.join(directory, name)
        try:
            os.mkdir(directory)
            os.chmod(directory, _MODE)  # a umask may take even our own bits
        except FileExistsError:
            continue
        except OSError:
            return None
        if "cpuset" in mount.options:
            _inherit_cpus(directory)
    way = os.path.join(directory, "cgroup.procs")
    return way if os.access(way, os.W_OK) else None


def _inherit_cpus(directory: str) -> None:
    """Give a new group its parent's processors and memory: without, nobody can be in it.

    Source: kernel Documentation/admin-guide/cgroup-v1/cpusets.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        with (
            contextlib.suppress(OSError),
            open(os.path.join(os.path.dirname(directory), name), encoding="utf-8") as above,
            open(os.path.join(directory, name), "w", encoding="utf-8") as own,
        ):
            own.write(above.read())
