"""Which directories below a root are containers of ours, and what their records say."""

from __future__ import annotations

import contextlib
import os

from ..state import ContainerLayout, ContainerRecord, Intent, is_process_id, load
from ..system import distrust_directory, held
from ..values import StateCorrupt, SupervisorError


def in_flight(layout: ContainerLayout) -> bool:
    """Whether somebody holds a container's lock who is making it, or removing it."""
    with contextlib.suppress(SupervisorError, OSError):
        if not held(layout.lock):
            return False
        if not os.path.lexists(layout.init.starttime):
            return True
        return load(ContainerRecord, layout.state).intent is Intent.DELETE
    return False


def strange(layout: ContainerLayout) -> str | None:
    """Return why a directory is none of our containers, and is left as it is; None if it may be.

    Raises:
        FileNotFoundError: it isn't there.
    """
    why = distrust_directory(layout.path)
    if why is not None:
        return f"its directory {why}: it was not made by us, and is left as it is"
    signs = (layout.state, layout.lock, layout.init.record)
    if not any(os.path.lexists(sign) for sign in signs):
        return "its directory holds no container: it is left as it is"
    for path in sorted({*layout.directories(), *layout.inner_directories()}):
        with contextlib.suppress(FileNotFoundError):
            why = distrust_directory(path)
            if why is not None:
                return f"the directory {_what(path)} {why}: it was not made by us, and is left"
    return None


def _what(path: str) -> str:
    name = os.path.basename(path)
    return f"of its process {name}" if is_process_id(name) else f"{name} in it"


def load_record(root: str, layout: ContainerLayout) -> ContainerRecord:
    """Load a container's record, if it belongs to this place.

    Raises:
        StateCorrupt: it doesn't, is missing, or can't be understood.
    """
    try:
        record = load(ContainerRecord, layout.state)
    except FileNotFoundError as error:
        raise StateCorrupt(layout.state, "missing") from error
    if record.id != layout.id:
        raise StateCorrupt(layout.state, f"it is the state of container {record.id!r}")
    if record.root != root:
        raise StateCorrupt(layout.state, f"it belongs to the root {record.root}")
    if record.cgroup is not None and not record.cgroup.endswith(f"-{record.id}"):
        raise StateCorrupt(layout.state, f"cgroup {record.cgroup} is not of its making")
    return record
