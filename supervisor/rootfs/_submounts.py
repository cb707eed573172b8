"""Mounts inside a root filesystem: a read-only root doesn't make them read-only.

Runtimes bind the root with all mounts below, and then make only the root's own mount read-only.

Source: proc_pid_mountinfo(5), also for poll(2) on that file; mount_setattr(2), AT_RECURSIVE.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Mapping
from typing import Any

from ..system import Descriptor, close_in_children, lifted
from ..values import raise_if_scarce

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_MOUNT_POINT = 4  # the field of a line
_READ = os.O_RDONLY | os.O_CLOEXEC


class MountTable:
    """The mounts that our runtimes will see; read again only after a change.

    A host may have thousands of mounts, and each create asks for them.
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
        try:
            namespace = os.stat("/proc/thread-self/ns/mnt").st_ino
            if self._held is None or namespace != self._namespace or self._poll.poll(0):
                self.close()
                self._held = close_in_children(lifted(os.open(self._path, _READ)))
                self._poll = select.poll()
                self._poll.register(self._held.fd, select.POLLPRI)
                self._namespace = namespace
                with open(self._held.fd, "rb", closefd=False) as file:
                    self._content = file.read()
        except OSError as error:
            raise_if_scarce(error)
            raise
        return self._content

    def close(self) -> None:
        """Close the descriptor; `read` may still be called."""
        if self._held is not None:
            self._held.close()
            self._held = None


def seal_submounts(spec: dict[str, Any], mounts: MountTable) -> dict[str, Any]:
    """Return a spec in which mounts inside a read-only root are read-only too.

    Mounts made after this call aren't.

    Args:
        spec: with the real path of the root filesystem as ``root.path``.
        mounts: the mounts that the runtime will see.

    Raises:
        TooManyFiles: no descriptor was left to look with.
    """
    if not spec["root"].get("readonly"):
        return spec
    root = spec["root"]["path"]
    table = mounts.read()
    if _escape(root) + b"/" not in table:
        return spec
    covered = [str(mount["destination"]) for mount in spec.get("mounts") or ()]
    entries = [
        _entry(root, point)
        for point in _topmost(_below(root, table))
        if not any(_inside(point, destination) for destination in covered)
    ]
    # First, since other mounts may lie inside these.
    return {**spec, "mounts": [*filter(None, entries), *(spec.get("mounts") or ())]}


def _below(root: str, table: bytes) -> Iterator[str]:
    """Yield the mount points below ``root``, as absolute paths inside."""
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
    """Yield the points that are in no other point: each is bound with all mounts inside."""
    last = None
    for point in sorted(set(points), key=lambda path: path.split("/")):
        if last is None or not _inside(point, last):
            last = point
            yield point


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _entry(root: str, point: str) -> Mapping[str, Any] | None:
    """Return the entry that binds a mount point over itself.

    ``rro`` stands without ``ro``: an ordinary user's remount would drop flags, which is forbidden.
    """
    source = root.rstrip("/") + point
    try:
        os.stat(source)
    except OSError:  # hidden from us, and so from us inside
        return None
    options = ["rbind", "rro"] if os.path.isdir(source) else ["bind", "ro"]
    return {"destination": point, "type": "bind", "source": source, "options": options}
