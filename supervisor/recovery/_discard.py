"""Remove a broken container: whatever can still be found of it, without believing its files."""

from __future__ import annotations

import contextlib
import os

from ..container import Estate, dispose, incomplete
from ..process import Shared, kill_found, shielded
from ..shim import ExitFifo, Shim
from ..state import ContainerLayout, ContainerRecord, ProcessLayout
from ..system import Lock, held
from ..tasks import within
from ..values import ContainerLocked, InfrastructureError, InvalidValue, StateCorrupt
from ._adopt import load_record, strange


async def discard(shared: Shared, layout: ContainerLayout, presumed: ContainerRecord) -> None:
    """Kill a broken container's processes and remove it.

    Args:
        shared: what its supervisor's parts share.
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
    except InfrastructureError:
        raise
    except (StateCorrupt, OSError) as error:
        raise InvalidValue(
            f"it isn't deleted: {error}; remove or repair that by hand", container=layout.id
        ) from error
    if lock is None:
        raise ContainerLocked(
            "cannot delete it: another supervisor that is alive supervises it",
            container=layout.id,
        )
    with lock:
        estate = _estate(layout, presumed, lock)
        try:
            with shielded(shared.deadlines.cleanup):
                await _end(shared, estate)
            await dispose(shared, estate)
        except (OSError, StateCorrupt) as error:
            raise incomplete(shared, estate, str(error)) from error


def _estate(layout: ContainerLayout, presumed: ContainerRecord, lock: Lock) -> Estate:
    record = presumed
    with contextlib.suppress(StateCorrupt, OSError):
        record = load_record(presumed.root, layout)
    known = os.path.lexists(os.path.join(record.runtime_root, record.id))
    return Estate(layout=layout, record=record, lock=lock, ran=known)


async def _end(shared: Shared, estate: Estate) -> None:
    """End its processes and its shims: after that there is nobody left to wait for."""
    for process in estate.layout.processes():
        kill_found(shared, estate.record, process)
    if estate.record.cgroup is not None:
        await shared.hierarchies.kill(estate.record.cgroup)
    for process in estate.layout.processes():
        await _end_shim(shared, process)
    unseen = [
        process.id for process in estate.layout.processes() if not await _ended(shared, process)
    ]
    if unseen or any(held(process.shim) for process in estate.layout.processes()):
        raise incomplete(shared, estate, "a shim that can't be found doesn't end")


async def _end_shim(shared: Shared, layout: ProcessLayout) -> None:
    """Have a shim kill what it watches, and end."""
    with contextlib.closing(Shim.adopt(layout)) as shim, shielded(2 * shared.deadlines.shim):
        if shim.alive():
            await shim.give_up(shared.deadlines.shim)


async def _ended(shared: Shared, layout: ProcessLayout) -> bool:
    """Wait until no shim watches its process any more, also one that couldn't be found.

    Its ``exit`` tells; where that isn't a fifo, nobody does.
    """
    with contextlib.suppress(FileNotFoundError, StateCorrupt):
        with contextlib.closing(ExitFifo(layout.exit)) as exit:
            with within(shared.deadlines.shim):
                await exit.wait_end()
            return not exit.watched()
    return True
