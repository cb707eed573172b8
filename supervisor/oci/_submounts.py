"""What is mounted inside of a root filesystem: a read-only root doesn't make that read-only.

Runtimes bind the root with all that is mounted below, and then make the root's own mount read-only.

Source: proc_pid_mountinfo(5); mount_setattr(2), AT_RECURSIVE.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT = 4  # the field of a line


def seal_submounts(spec: dict[str, Any], mountinfo: str = "/proc/self/mountinfo") -> dict[str, Any]:
    """Return a spec in which what is mounted inside of a read-only root is read-only too.

    What is mounted there after this was called, isn't.

    Args:
        spec: with an absolute ``root.path``.
        mountinfo: the table of the mounts that the runtime will see.
    """
    if not spec["root"].get("readonly"):
        return spec
    root = os.path.realpath(spec["root"]["path"])
    with open(mountinfo, "rb") as file:
        table = file.read()
    if _escape(root) + b"/" not in table:
        return spec
    covered = [str(mount["destination"]) for mount in spec.get("mounts") or ()]
    entries = [
        _entry(root, point)
        for point in _topmost(_below(root, table))
        if not any(_inside(point, destination) for destination in covered)
    ]
    # First, since others may stand inside of them.
    return {**spec, "mounts": [*filter(None, entries), *(spec.get("mounts") or ())]}


def _below(root: str, table: bytes) -> Iterator[str]:
    """Yield the mount points below ``root``, as absolute paths in it."""
    start = b" " + _escape(root).rstrip(b"/") + b"/"
    for line in table.splitlines():
        if start in line:
            point = os.fsdecode(
                _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split()[_MOUNT_POINT])
            )
            if _inside(point, root) and point != root:
                yield "/" + os.path.relpath(point, root)


def _escape(path: str) -> bytes:
    return re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(path))


def _topmost(points: Iterator[str]) -> Iterator[str]:
    """Yield those that are in no other one: each is bound with all that is in it."""
    last = None
    for point in sorted(set(points), key=lambda path: path.split("/")):
        if last is None or not _inside(point, last):
            last = point
            yield point


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _entry(root: str, point: str) -> Mapping[str, Any] | None:
    """Return the entry that binds a mount point over itself.

    Without ``ro`` beside ``rro``: an ordinary user's remount would drop flags that it may not.
    """
    source = root.rstrip("/") + point
    try:
        os.stat(source)
    except OSError:  # somebody's that isn't shown to us, nor then to whoever is us inside
        return None
    options = ["rbind", "rro"] if os.path.isdir(source) else ["bind", "ro"]
    return {"destination": point, "type": "bind", "source": source, "options": options}
