"""Which cgroup hierarchies are mounted, where, and how much of each is seen there: pure.

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
        point: where it is mounted.
        root: the cgroup that is seen there, as ``/proc/PID/cgroup`` names it: not ``/`` where a
            part of the hierarchy is bound, as docker does without a cgroup namespace.
        device: the file system's: several mounts of one hierarchy have the same.
        version: 1 or 2.
        options: those of the hierarchy: on version 1 its controllers, or its name, among them.
        read_only: whether it, or the hierarchy, is mounted so.
    """

    point: str
    root: str
    device: int
    version: int
    options: frozenset[str]
    read_only: bool

    def counts_memory(self) -> bool:
        """Whether it may count out-of-memory kills."""
        return self.version == 2 or "memory" in self.options

    def path_of(self, cgroup: str) -> str:
        """Return how ``/proc/PID/cgroup`` names what is ``cgroup`` below the mount point."""
        return cgroup if self.root == "/" else self.root + cgroup

    def is_of(self, controllers: str) -> bool:
        """Whether a line of ``/proc/PID/cgroup`` with these controllers is about it."""
        if not controllers:
            return self.version == 2
        return self.version == 1 and self.options.issuperset(controllers.split(","))


def parse(lines: Iterable[str]) -> list[Mount]:
    """Return the cgroup mounts of a mount table, in its order."""
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
    )


def choose(mounts: Iterable[Mount], is_seen: Callable[[Mount], bool]) -> list[Mount]:
    """Return one mount for each hierarchy: the one in which a runtime makes cgroups.

    A further mount of a hierarchy, read-only perhaps, changes nothing: what may be written, and
    is where runtimes look, comes first. Of two at one place, the later one hides the other.
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
