"""Checks of container directories: whether a directory is ours, and the container's record."""

from __future__ import annotations

import contextlib
import os

from ..state import ContainerLayout, ContainerRecord, Intent, is_process_id, load
from ..system import distrust_directory, held
from ..values import StateCorrupt, SupervisorError


def in_flight(layout: ContainerLayout) -> bool:
    """Whether the owner of a container, who holds the lock, is making or removing the container."""
    with contextlib.suppress(SupervisorError, OSError):
        if not held(layout.lock):
            return False
        if not os.path.lexists(layout.init.starttime):
            return True
        return load(ContainerRecord, layout.state).intent is Intent.DELETE
    return False


def strange(layout: ContainerLayout) -> str | None:
    """Return why a directory isn't one of our containers, and is left as is; None if it may be.

    Raises:
        FileNotFoundError: the directory doesn't exist.
    """
    why = distrust_directory(layout.path)
    if why is not None:
        return f"the directory {why}: not made by us, and left as it is"
    signs = (layout.state, layout.lock, layout.init.record)
    if not any(os.path.lexists(sign) for sign in signs):
        return "the directory holds no container, and is left as it is"
    for path in sorted({*layout.directories(), *layout.inner_directories()}):
        with contextlib.suppress(FileNotFoundError):
            why = distrust_directory(path)
            if why is not None:
                return f"the directory {_what(path)} {why}: not made by us, and left"
    return None


def _what(path: str) -> str:
    name = os.path.basename(path)
    return f"of the process {name}" if is_process_id(name) else f"{name} inside"


def load_record(root: str, layout: ContainerLayout) -> ContainerRecord:
    """Load a container's record, if the record belongs to this id and root.

    Raises:
        StateCorrupt: the record belongs to another id or root, is missing, or can't be understood.
    """
    try:
        record = load(ContainerRecord, layout.state)
    except FileNotFoundError as error:
        raise StateCorrupt(layout.state, "missing") from error
    if record.id != layout.id:
        raise StateCorrupt(layout.state, f"this is the state of container {record.id!r}")
    if record.root != root:
        raise StateCorrupt(layout.state, f"the file belongs to the root {record.root}")
    if record.cgroup is not None and not record.cgroup.endswith(f"-{record.id}"):
        raise StateCorrupt(layout.state, f"the cgroup {record.cgroup} is not this container's")
    return record
