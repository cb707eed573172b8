"""A cgroup beside those of the containers, for shims and keepers, which must outlive a program.

A service manager ends a program by killing the program's whole cgroup. Processes in another cgroup
live on, and end the containers in good order, or wait for the next supervisor.
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
    """Make that group in every writable hierarchy; at the end remove the group if empty.

    All supervisors with the same cgroup parent share the group. A process that is about to enter
    makes the group again (native/cgroup.c).

    Args:
        hierarchies: the mounted cgroups.
        parent: the parent of the containers' cgroups. The group lies beside ``parent``, since a
            freeze or kill of ``parent`` is meant for containers.

    Cancellation: the removal is shielded, and takes some milliseconds at most.

    Yields:
        The files by which a process enters the group: ``cgroup.procs``, one for each hierarchy.
    """
    group = parent + _SUFFIX
    ways = [way for mount in hierarchies.writable if (way := _make(mount, group)) is not None]
    try:
        yield ways
    finally:
        if not forked():  # else the parent's keeper may be about to enter
            await _remove_all(ways)


@undoing
async def _remove_all(ways: Sequence[str]) -> None:
    with trio.CancelScope(shield=True):
        for way in ways:
            await _remove(way)


async def _remove(way: str) -> None:
    """Remove an empty group; a process that has just ended is in the way for a moment."""
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
    except OSError:  # removed by another supervisor
        return False


def _make(mount: Mount, group: str) -> str | None:
    """Make a group in one hierarchy; return the path of ``cgroup.procs``, or None if forbidden."""
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
    """Give a new group the parent's processors and memory: without them no process can enter.

    Source: kernel Documentation/admin-guide/cgroup-v1/cpusets.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        with (
            contextlib.suppress(OSError),
            open(os.path.join(os.path.dirname(directory), name), encoding="utf-8") as above,
            open(os.path.join(directory, name), "w", encoding="utf-8") as own,
        ):
            own.write(above.read())
