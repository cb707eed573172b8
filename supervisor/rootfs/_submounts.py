"""What is mounted inside of a root filesystem: a read-only root doesn't make that read-only.

Runtimes bind the root with all that is mounted below, and then make the root's own mount read-only.

Source: proc_pid_mountinfo(5), also for what poll(2) tells of it; mount_setattr(2), AT_RECURSIVE.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Mapping
from typing import Any

from ..system import Descriptor, close_in_children, lifted, scarce
from ._paths import real_path

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT = 4  # the field of a line
_READ = os.O_RDONLY | os.O_CLOEXEC


class MountTable:
    """What is mounted where a runtime of ours will run; read anew only when that has changed.

    A machine may have thousands of mounts, and each create asks.
    """

    def __init__(self, path: str = "/proc/thread-self/mountinfo") -> None:
        self._path = path
        self._held: Descriptor | None = None
        self._poll = select.poll()
        self._namespace = 0
        self._content = b""

    def read(self) -> bytes:
        """Return the table.

        Raises:
            TooManyFiles: no descriptor was left to look with.
        """
        with scarce():
            namespace = os.stat("/proc/thread-self/ns/mnt").st_ino
            if self._held is None or namespace != self._namespace or self._poll.poll(0):
                self.close()
                self._held = close_in_children(lifted(os.open(self._path, _READ)))
                self._poll = select.poll()
                self._poll.register(self._held.fd, select.POLLPRI)
                self._namespace = namespace
                with open(self._held.fd, "rb", closefd=False) as file:
                    self._content = file.read()
        return self._content

    def close(self) -> None:
        """Close its descriptor; it may be read again."""
        if self._held is not None:
            self._held.close()
            self._held = None


def seal_submounts(spec: dict[str, Any], mounts: MountTable) -> dict[str, Any]:
    """Return a spec in which what is mounted inside of a read-only root is read-only too.

    What is mounted there after this was called, isn't.

    Args:
        spec: with an absolute ``root.path``.
        mounts: the mounts that the runtime will see.

    Raises:
        TooManyFiles: no descriptor was left to look with.
    """
    if not spec["root"].get("readonly"):
        return spec
    root = real_path(spec["root"]["path"])
    if root is None:
        return spec
    table = mounts.read()
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
