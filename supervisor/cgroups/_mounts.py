"""The mounted cgroup hierarchies: which, where, and how much of each is visible. Pure.

Source: man 5 proc_pid_mountinfo, man 7 cgroups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import attrs

from ..system import unescaped

_USUAL_PLACE = "/sys/fs/cgroup"


@attrs.frozen(kw_only=True)
class Mount:
    """One mount of a cgroup hierarchy.

    Attributes:
        point: the mount point.
        root: the cgroup that is visible there, as ``/proc/PID/cgroup`` names it. Not ``/`` if only
            a part of the hierarchy is bound, as docker does without a cgroup namespace.
        device: the file system's device: all mounts of one hierarchy have the same.
        version: 1 or 2.
        options: the hierarchy's options: on version 1 including the controllers, or the name.
        read_only: whether the mount, or the hierarchy, is read-only.
        counts_memory: whether the hierarchy may count out-of-memory kills.
    """

    point: str
    root: str
    device: int
    version: int
    options: frozenset[str]
    read_only: bool
    counts_memory: bool

    def path_of(self, cgroup: str) -> str:
        """Return the name in ``/proc/PID/cgroup`` of ``cgroup``, a path below the mount point."""
        return cgroup if self.root == "/" else self.root + cgroup

    def is_of(self, controllers: str) -> bool:
        """Whether a line of ``/proc/PID/cgroup`` with these controllers is about this hierarchy."""
        if not controllers:
            return self.version == 2
        return self.version == 1 and self.options.issuperset(controllers.split(","))


def parse(lines: Iterable[str]) -> list[Mount]:
    """Return the cgroup mounts of a mount table, in the table's order."""
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, (kind, _, *options) = before.split(" "), after.strip().split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            found.append(_mount(fields, 1 if kind == "cgroup" else 2, options))
    return found


def _mount(fields: Sequence[str], version: int, options: Sequence[str]) -> Mount:
    major, _, minor = fields[2].partition(":")
    of_hierarchy = frozenset("".join(options).split(","))
    return Mount(
        point=unescaped(fields[4]),
        root=unescaped(fields[3]),
        device=os.makedev(int(major), int(minor)),
        version=version,
        options=of_hierarchy,
        read_only="ro" in of_hierarchy or "ro" in fields[5].split(","),
        counts_memory=version == 2 or "memory" in of_hierarchy,
    )


def choose(mounts: Iterable[Mount], is_seen: Callable[[Mount], bool]) -> list[Mount]:
    """Return one mount for each hierarchy: the one in which a runtime makes cgroups.

    Further mounts of a hierarchy, read-only perhaps, change nothing: a writable mount, and one
    where runtimes look, comes first. Of two mounts at one place, the later one hides the other.
    """
    on_top = {mount.point: mount for mount in mounts}
    chosen: dict[int, Mount] = {}
    for mount in on_top.values():
        known = chosen.get(mount.device)
        if is_seen(mount) and (known is None or _rank(mount) < _rank(known)):
            chosen[mount.device] = mount
    return list(chosen.values())


def _rank(mount: Mount) -> tuple[bool, bool]:
    return mount.read_only, not mount.point.startswith(_USUAL_PLACE)
