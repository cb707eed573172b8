"""Whether what a runtime knows under an id is ours: it holds hooks, which a delete runs.

In a directory that the user has named (``Runtime(root=...)``) the same id may be another
supervisor's, podman's or somebody's by hand, and even the ``.runtime`` below our own root may be
named by somebody. What is ours belongs to us, and names our own bundle, which nobody else's does.
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
from ..cgroups import Hierarchies
from ..process import Shared
from ..runtime import ContainerRuntime
from ..state import ContainerLayout, ContainerRecord, RootLayout
from ..system import distrust, is_argument, lenient
from ..tasks import in_thread
from ..values import ContainerExists, StateCorrupt
from ._core import Core

logger: Final = logging.getLogger("supervisor")

# Where runtimes keep what they know of a container, below DIRECTORY/ID: runc and youki; crun. And
# crun's copy of the spec, which is there before the rest, and needn't name the bundle.
_STATES: Final = frozenset({"state.json", "status"})
# json-c, which crun has, writes \/ for a slash, and Go \u003c for <.
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ANNOTATION: Final = "org.trio-supervisor.bundle"
_FILES: Final = ("state.json", "status", "config.json")
# What `start` opens, which runc and crun make first; runc's copy of itself (mkostemp(3)), and what
# it renames to state.json (Go's os.CreateTemp).
_BEGUN: Final = re.compile(r"exec\.fifo|runc\.[0-9A-Za-z]{6}|state-[0-9]+")


def is_shared(record: ContainerRecord) -> bool:
    """Whether others may have containers in its runtime's ``--root``."""
    own = RootLayout(record.root).runtime_root
    if record.runtime_root == own:
        return False
    return os.path.realpath(record.runtime_root) != os.path.realpath(own)


def require_free(record: ContainerRecord) -> None:
    """Refuse an id that the runtime knows already: before anything is made.

    Raises:
        ContainerExists: it does.
    """
    path = _place(record)
    if os.path.lexists(path):
        raise ContainerExists(
            f"the runtime's root {record.runtime_root} has a container of that id, which isn't "
            f"ours: choose another id, or remove that one ({path})",
            container=record.id,
        )


async def require_empty(shared: Shared, record: ContainerRecord) -> None:
    """Refuse a container whose cgroup holds processes already: a kill and a delete are by it.

    Raises:
        ContainerExists: it does.
    """
    if record.cgroup is None or not shared.hierarchies.exists(record.cgroup):
        return
    pids = await shared.hierarchies.list_members(record.cgroup)
    if pids:
        raise ContainerExists(
            f"the cgroup {record.cgroup} that it would get has {len(pids)} processes that aren't "
            f"ours, {min(pids)} for one: choose another id, or a cgroup_parent= of your own",
            container=record.id,
        )


async def is_ours(core: Core) -> bool:
    """Whether the runtime may be told to delete what it knows under the container's id.

    Raises:
        StateCorrupt: somebody else may have put there what the runtime would believe.
        And as `ContainerRuntime.bundle`.
    """
    layout, record = core.layout, core.record
    known = _require_trusted(_place(record))
    if not is_shared(record):
        states = [name for name in _STATES if known.get(name)]
        if not states or any(_is_mentioned(record, layout, name) for name in states):
            return True
    elif not os.path.lexists(_place(record)):
        return False
    else:
        told = await core.runtime.bundle()
        if told is not None:
            return os.path.realpath(told) == os.path.realpath(layout.bundle)
        # A create that was cut short has left it.
        if any(_is_mentioned(record, layout, name) for name in known):
            return True
        if not any(known.values()) and await in_thread(_remove_begun, record):
            return False
    logger.warning(
        "container %s: %s may be somebody else's, who shares the runtime's root: it is left there",
        record.id,
        _place(record),
    )
    return False


def _require_trusted(place: str) -> dict[str, int]:
    """Return the size of each file that a runtime would believe, if all of it is ours alone.

    Raises:
        StateCorrupt: it isn't.
    """
    sizes: dict[str, int] = {}
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return sizes
    why = "is a link" if stat.S_ISLNK(status.st_mode) else distrust(status)
    if why is not None:
        raise StateCorrupt(place, f"it {why}: it was not made by us, and is left as it is")
    for name in _FILES if stat.S_ISDIR(status.st_mode) else ():
        path = os.path.join(place, name)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            why = distrust(status) if stat.S_ISREG(status.st_mode) else "is no regular file"
            if why is not None:
                raise StateCorrupt(path, f"it {why}: it was not made by us, and is left as it is")
            sizes[name] = status.st_size
    return sizes


def proof(record: ContainerRecord) -> Sequence[str]:
    """Return by what a keeper knows ours: a directory, and what a file in it must have in it."""
    return [_place(record), RootLayout(record.root).container(record.id).bundle]


def cleanup_list(record: ContainerRecord, hierarchies: Hierarchies, bundle: Bundle) -> bytes:
    """Return what the keeper has to do for a container, should we die (docs/shim-protocol.md)."""
    deletion = ContainerRuntime.of(record).deletion()
    verb = "owned" if is_shared(record) else "private"
    steps = [[verb, *proof(record), *deletion.words]]
    if record.cgroup is not None:
        steps += [["cgroup", path] for path in hierarchies.directories(record.cgroup)]
    if bundle.temporary:  # it goes with the program that made it
        steps.append(["bundle", bundle.path])
    text = "".join("".join(f"{word}\0" for word in step) + "\0" for step in steps)
    return os.fsencode(text)


def with_proof(spec: dict[str, Any], record: ContainerRecord) -> dict[str, Any]:
    """Return a spec that names our bundle, where others may have containers in the runtime's root.

    crun copies it before it writes anything else: so a create that is killed leaves whose it was.
    """
    if not is_shared(record):
        return spec
    bundle = RootLayout(record.root).container(record.id).bundle
    return {**spec, "annotations": {**(spec.get("annotations") or {}), _ANNOTATION: bundle}}


def _remove_begun(record: ContainerRecord) -> bool:
    """Remove what a create had made before it wrote whose it is, if no create is under way.

    Whoever makes a container of that id has it among its arguments. Who isn't seen has ended
    before: what he has made is there when we look into the directory, by a descriptor of it.
    """
    place = _place(record)
    with lenient():
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if is_argument(record.id):
                return False
            names = os.listdir(fd)
            if not all(_is_begun(fd, name) for name in names):
                return False
            for name in names:
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(place)
        return True
    return False


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
    with lenient(), open(path, "rb", buffering=0) as file:
        content = _ESCAPE.sub(_unescaped, file.read())
        return words + b'"' in content or words + b"/" in content
    return False


def _unescaped(escape: re.Match[bytes]) -> bytes:
    number, literal = escape.groups()
    return literal if number is None else chr(int(number, 16)).encode(errors="replace")
