"""The proof that the runtime's state of an id is ours, before a delete runs the hooks inside.

In a directory that the user has named (``Runtime(root=...)``), a container with the same id may
belong to another supervisor, to podman or to a person. Another program may even use the
``.runtime`` below our own root. State that is ours belongs to our uid, and names our own bundle,
which no other container has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, Final

from ..bundle import Bundle
from ..process import Shared
from ..runtime import COPY, ContainerRuntime, detach_copies
from ..state import ContainerLayout, ContainerRecord, RootLayout
from ..system import distrust, is_argument
from ..tasks import in_thread
from ..values import ContainerExists, StateCorrupt, raise_if_scarce
from ._core import Core

logger: Final = logging.getLogger("supervisor")

# The files of a runtime's state, below DIRECTORY/ID: runc's and youki's; crun's. crun also copies
# the spec to config.json, before the other files; the spec needn't name the bundle.
_STATES: Final = frozenset({"state.json", "status"})
# json-c, which crun uses, writes \/ for a slash; Go writes \u003c for <.
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ANNOTATION: Final = "org.trio-supervisor.bundle"
_FILES: Final = ("state.json", "status", "config.json")
# The files of an unfinished create: the fifo for `start`, which runc and crun make first; runc's
# copy of the runc program; the file that runc renames to state.json (os.CreateTemp).
_BEGUN: Final = re.compile(rf"exec\.fifo|{COPY}|state-[0-9]+")


def is_shared(shared: Shared, record: ContainerRecord) -> bool:
    """Whether other programs may have containers in the runtime's ``--root``."""
    own, used = shared.runtime_root, record.runtime_root
    return used != own and os.path.realpath(used) != os.path.realpath(own)


def require_free(record: ContainerRecord) -> None:
    """Refuse an id that the runtime knows already, before anything is made.

    Raises:
        ContainerExists: the runtime knows the id.
    """
    path = _place(record)
    if os.path.lexists(path):
        raise ContainerExists(
            f"the runtime's root {record.runtime_root} has a container of that id, which isn't "
            f"ours: choose another id, or remove that one ({path})",
            container=record.id,
        )


async def require_empty(shared: Shared, record: ContainerRecord) -> None:
    """Refuse a container whose cgroup has processes already: kill and delete would kill them.

    Raises:
        ContainerExists: the cgroup has processes.
    """
    if record.cgroup is None or not shared.hierarchies.exists(record.cgroup):
        return
    pids = await shared.hierarchies.list_members(record.cgroup)
    if pids:
        raise ContainerExists(
            f"the cgroup {record.cgroup} for the container has {len(pids)} processes that aren't "
            f"ours, for example {min(pids)}: choose another id, or another cgroup_parent",
            container=record.id,
        )


async def is_ours(core: Core) -> bool:
    """Whether the runtime's state of the container's id is ours, so that a delete is safe.

    Raises:
        StateCorrupt: another user may have written files that the runtime would believe.
        And as `ContainerRuntime.bundle`.
    """
    layout, record = core.layout, core.record
    known = _require_trusted(_place(record))
    if not is_shared(core.shared, record):
        states = [name for name in _STATES if known.get(name)]
        if not states or any(_is_mentioned(record, layout, name) for name in states):
            return True
    elif not os.path.lexists(_place(record)):
        return False
    else:
        told = await core.runtime.bundle()
        if told is not None:
            return os.path.realpath(told) == os.path.realpath(layout.bundle)
        # An unfinished create has left the files.
        if any(_is_mentioned(record, layout, name) for name in known):
            return True
        if not any(known.values()) and await in_thread(_remove_begun, record):
            return False
    logger.warning(
        "container %s: %s may be another program's, in a shared runtime root: left as it is",
        record.id,
        _place(record),
    )
    return False


def _require_trusted(place: str) -> dict[str, int]:
    """Return the size of each file that a runtime would believe, if all files are ours alone.

    Raises:
        StateCorrupt: a file, or the directory, isn't ours alone.
    """
    sizes: dict[str, int] = {}
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return sizes
    why = "is a link" if stat.S_ISLNK(status.st_mode) else distrust(status)
    if why is not None:
        raise StateCorrupt(place, f"this {why}: it was not made by us, and is left as it is")
    for name in _FILES if stat.S_ISDIR(status.st_mode) else ():
        path = os.path.join(place, name)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            why = distrust(status) if stat.S_ISREG(status.st_mode) else "is no regular file"
            if why is not None:
                raise StateCorrupt(path, f"this {why}: it was not made by us, and is left as it is")
            sizes[name] = status.st_size
    return sizes


def proof(record: ContainerRecord) -> Sequence[str]:
    """Return the keeper's proof: a directory, and a text that one of the files must contain."""
    return [_place(record), RootLayout(record.root).container(record.id).bundle]


def cleanup_list(shared: Shared, record: ContainerRecord, bundle: Bundle) -> bytes:
    """Return the keeper's list of steps for a container, if we die (docs/shim-protocol.md)."""
    deletion = ContainerRuntime.of(record).deletion()
    verb = "owned" if is_shared(shared, record) else "private"
    steps = [[verb, *proof(record), *deletion.words]]
    if record.cgroup is not None:
        steps += [["cgroup", path] for path in shared.hierarchies.directories(record.cgroup)]
    if bundle.temporary:  # the bundle ends with the program that made the bundle
        steps.append(["bundle", bundle.path])
    text = "".join("".join(f"{word}\0" for word in step) + "\0" for step in steps)
    return os.fsencode(text)


def with_proof(spec: dict[str, Any], shared: Shared, record: ContainerRecord) -> dict[str, Any]:
    """Return a spec that names our bundle, if the runtime's root is shared.

    crun first copies the spec. So even a killed create leaves a file that shows the owner.
    """
    if not is_shared(shared, record):
        return spec
    bundle = RootLayout(record.root).container(record.id).bundle
    return {**spec, "annotations": {**(spec.get("annotations") or {}), _ANNOTATION: bundle}}


def _remove_begun(record: ContainerRecord) -> bool:
    """Remove the files of a create that was killed before they named an owner; return whether.

    A create that is still running is left alone: the id is among that process's arguments. A
    process that isn't seen has ended before our look, so all files of that process are in the
    directory when we list it, through a descriptor.
    """
    place = _place(record)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if is_argument(record.id):
                return False
            names = os.listdir(fd)
            if not all(_is_begun(fd, name) for name in names):
                return False
            detach_copies(place)
            for name in names:
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(place)
    except OSError as error:
        raise_if_scarce(error)
        return False
    return True


def _is_begun(directory: int, name: str) -> bool:
    if _BEGUN.fullmatch(name):
        return True
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return name in _FILES and stat.S_ISREG(status.st_mode) and status.st_size == 0


def _place(record: ContainerRecord) -> str:
    return os.path.join(record.runtime_root, record.id)


def _is_mentioned(record: ContainerRecord, layout: ContainerLayout, name: str) -> bool:
    words = os.fsencode(layout.bundle)
    path = os.path.join(_place(record), name)
    try:
        with open(path, "rb", buffering=0) as file:
            content = _ESCAPE.sub(_unescaped, file.read())
    except OSError as error:
        raise_if_scarce(error)
        return False
    return words + b'"' in content or words + b"/" in content


def _unescaped(escape: re.Match[bytes]) -> bytes:
    number, literal = escape.groups()
    return literal if number is None else chr(int(number, 16)).encode(errors="replace")
