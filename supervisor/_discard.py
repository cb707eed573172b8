"""Remove a broken container: whatever can still be found of it, without believing its files."""

from __future__ import annotations

import contextlib
import os

from ._adopt import load_record, strange
from ._dispose import Estate, dispose, leftovers
from ._errors import CleanupIncomplete, ContainerLocked, InvalidValue, StateCorrupt
from ._evidence import gather
from ._host import Host, shielded
from .shim import Shim
from .state import ContainerLayout, ContainerRecord, Lock, ProcessLayout, held


async def discard(host: Host, layout: ContainerLayout, presumed: ContainerRecord) -> None:
    """Kill a broken container's processes and remove it.

    Args:
        host: what its supervisor's parts share.
        layout: its directory.
        presumed: what its ``state.json`` would say, where that can't be read.

    Raises:
        InvalidValue: the directory isn't ours, or never was a container's.
        ContainerLocked: another supervisor holds its lock.
        CleanupIncomplete: something is left.
    """
    try:
        why = strange(layout)
        if why is not None:
            raise InvalidValue(f"{layout.path} isn't deleted: {why}", container=layout.id)
        lock = Lock.take(layout.lock)
    except FileNotFoundError:  # it was removed by hand
        return
    except StateCorrupt as error:
        raise InvalidValue(f"it isn't deleted: {error}", container=layout.id) from error
    if lock is None:
        raise ContainerLocked(
            "cannot delete it: another supervisor that is alive supervises it",
            container=layout.id,
        )
    with lock:
        estate = _estate(layout, presumed, lock)
        try:
            with shielded(host.deadlines.cleanup):
                await _end(host, estate)
            await dispose(host, estate)
        except (OSError, StateCorrupt) as error:
            raise _incomplete(host, estate, str(error)) from error


def _estate(layout: ContainerLayout, presumed: ContainerRecord, lock: Lock) -> Estate:
    record = presumed
    with contextlib.suppress(StateCorrupt, OSError):
        record = load_record(presumed.root, layout)
    known = os.path.exists(os.path.join(record.runtime_root, record.id))
    return Estate(layout=layout, record=record, lock=lock, ran=known)


async def _end(host: Host, estate: Estate) -> None:
    """End its processes and its shims: after that there is nobody left to wait for."""
    for process in estate.layout.processes():
        _kill(host, estate.record, process)
    if estate.record.cgroup is not None:
        await host.hierarchies.kill(estate.record.cgroup)
    for process in estate.layout.processes():
        await _end_shim(host, process)
    if any(held(process.shim) for process in estate.layout.processes()):
        raise _incomplete(host, estate, "a shim that can't be found doesn't end")


def _kill(host: Host, record: ContainerRecord, layout: ProcessLayout) -> None:
    """Kill a process if it is certain which one it is."""
    with contextlib.suppress(StateCorrupt):
        with contextlib.closing(gather(host, record, layout)) as found:
            if found.process is not None:
                found.process.kill()


async def _end_shim(host: Host, layout: ProcessLayout) -> None:
    """Have a shim kill what it watches, and end."""
    try:
        shim = Shim.adopt(layout)
    except StateCorrupt:
        shim = Shim(layout, None)
    with contextlib.closing(shim), shielded(2 * host.deadlines.shim):
        if shim.alive():
            await shim.give_up(host.deadlines.shim)


def _incomplete(host: Host, estate: Estate, why: str) -> CleanupIncomplete:
    return CleanupIncomplete(
        f"clean-up failed: {why}. Left: {', '.join(leftovers(host, estate))}",
        seconds=host.deadlines.cleanup,
        container=estate.record.id,
    )
