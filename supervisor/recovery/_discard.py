"""Remove a broken container and everything found of it, without trusting the files."""

from __future__ import annotations

import contextlib

from ..container import delete_broken
from ..state import ContainerLayout, ContainerRecord
from ..system import Lock
from ..values import ContainerLocked, InfrastructureError, InvalidValue, StateCorrupt
from ._adopt import Recovery
from ._directories import load_record, strange


async def discard(recovery: Recovery, layout: ContainerLayout, presumed: ContainerRecord) -> None:
    """Kill a broken container's processes, and remove the container.

    Args:
        recovery: what adoption needs of the supervisor.
        layout: the container's directory.
        presumed: the record to use where ``state.json`` can't be read.

    Raises:
        InvalidValue: the directory isn't ours, or was never a container's.
        ContainerLocked: another supervisor holds the container's lock.
        CleanupIncomplete: something of the container is left.
    """
    try:
        why = strange(layout)
        if why is not None:
            raise InvalidValue(f"{layout.path} isn't deleted: {why}", container=layout.id)
        lock = Lock.take(layout.lock)
    except FileNotFoundError:  # removed by hand
        return
    except InfrastructureError:
        raise
    except (StateCorrupt, OSError) as error:
        raise InvalidValue(
            f"the container isn't deleted: {error}; remove or repair the file by hand",
            container=layout.id,
        ) from error
    if lock is None:
        raise ContainerLocked(
            "cannot delete the container: another supervisor owns it and is alive",
            container=layout.id,
        )
    with lock:
        record = presumed
        with contextlib.suppress(StateCorrupt, OSError):
            record = load_record(presumed.root, layout)
        await delete_broken(recovery.core_of(layout, record, lock))
