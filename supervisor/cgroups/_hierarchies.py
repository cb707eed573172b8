"""The cgroup of one container in every hierarchy that is mounted: version 1, 2 or both.

A container's cgroup is named once, as its spec's ``linux.cgroupsPath``; runtimes make it below
the mount point of each hierarchy. Source: man 7 cgroups; kernel Documentation/admin-guide,
cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

import attrs
import trio

from ..tasks import nap
from ..values import scarcity
from . import _tree as tree
from ._mounts import Mount, choose, parse
from ._steps import Steps, T, begin, carry_out, finish

_RETRY_SECONDS = 0.002
_THREADS = 4

Stands = Callable[[], bool]


def _always() -> bool:
    return True


@attrs.frozen
class Hierarchies:
    """The mounted cgroup hierarchies, each once.

    Attributes:
        hierarchies: how each is mounted, where runtimes make cgroups in it.
        usable: whether we may make cgroups: root may, an ordinary user mostly may not.
        named: whether a container is given a cgroup of its own all the same. For root it is:
            where the runtime can't make it, it says so; without, a container would have that of
            any other of its id. An ordinary user's runtime does without, unless it is told one.
    """

    hierarchies: tuple[Mount, ...]
    usable: bool
    named: bool
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(_THREADS), eq=False, repr=False
    )

    @classmethod
    def discover(cls, mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
        """Read them from the mount table (man 5 proc_pid_mountinfo).

        Raises:
            TooManyFiles: no descriptor was left.
        """
        try:
            with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
                mounts = choose(parse(file), _is_seen)
        except OSError as error:
            raise scarcity(error) from error
        able = [not mount.read_only and os.access(mount.point, os.W_OK) for mount in mounts]
        named = bool(mounts) if _is_root() else bool(able) and all(able)
        return cls(tuple(mounts), named and any(able), named)

    @property
    def writable(self) -> list[Mount]:
        """Those in which something can be changed."""
        return [mount for mount in self.hierarchies if not mount.read_only]

    @property
    def mounts(self) -> list[str]:
        """Their mount points."""
        return [mount.point for mount in self.writable]

    @property
    def memory_mounts(self) -> list[str]:
        """Those of the hierarchies that count memory."""
        return [mount.point for mount in self.hierarchies if mount.counts_memory()]

    def directories(self, cgroup: str) -> list[str]:
        """Return the directories that ``cgroup`` could have, existing or not."""
        return [mount + cgroup for mount in self.mounts]

    def remains(self, cgroup: str) -> list[str]:
        """Return the directories of ``cgroup`` that exist."""
        return [path for path in self.directories(cgroup) if os.path.isdir(path)]

    def exists(self, cgroup: str) -> bool:
        """Whether ``cgroup`` has a directory in some hierarchy."""
        return any(os.access(path, os.F_OK) for path in self.directories(cgroup))

    def oom_kills(self, cgroup: str | None) -> int:
        """Return how many processes the kernel has killed for want of memory in ``cgroup``."""
        if cgroup is None:
            return 0
        counts = [0]
        for mount in self.memory_mounts:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    counts.append(_counter(f"{mount}{cgroup}/{name}", "oom_kill"))
        return max(counts)

    # ---- who is in it ---------------------------------------------------------------------

    def members(self, cgroup: str) -> set[int]:
        """Return the pids in ``cgroup`` and below it, in all hierarchies."""
        return finish(self.member_steps(cgroup))

    def member_steps(self, cgroup: str) -> Steps[set[int]]:
        """Do that in small steps."""
        pids: set[int] = set()
        with tree.opened(self.directories(cgroup)) as tops:
            for top in tops:
                with contextlib.suppress(OSError):
                    pids |= yield from tree.members(top)
        return pids

    async def list_members(self, cgroup: str) -> set[int]:
        """Do that without holding up others, however many there are."""
        return await self.carry_out(self.member_steps(cgroup))

    def holds(self, cgroup: str, pid: int) -> bool:
        """Whether the process is in ``cgroup`` or below it in some hierarchy.

        Where a part of a hierarchy is mounted, the kernel names the process's cgroup from
        further up than we do.
        """
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.rstrip("\n").split(":", 2)[1:] for line in file]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return pid in self.members(cgroup)  # gone, or hidden (hidepid): groups list it still
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # so deep is nobody but in a group below ours
                return pid in self.members(cgroup)
            raise scarcity(error) from error
        return any(
            mount.is_of(controllers) and _is_below(path, mount.path_of(cgroup))
            for controllers, path in lines
            for mount in self.hierarchies
        )

    def frozen(self, cgroup: str) -> bool:
        """Whether what enters ``cgroup`` is frozen at once."""
        with tree.opened(self.directories(cgroup)) as tops:
            return any(tree.is_frozen(top) for top in tops)

    # ---- the end of it --------------------------------------------------------------------

    def thaw_steps(self, cgroup: str, stands: Stands = _always) -> Steps[None]:
        """Thaw ``cgroup`` and every group below it, in small steps; `kill_steps` has ``stands``."""
        with tree.opened(self.directories(cgroup)) as tops:
            for top in tops if stands() else ():
                with contextlib.suppress(OSError):
                    yield from tree.thaw(top)

    def kill_steps(self, cgroup: str, stands: Stands = _always) -> Steps[None]:
        """SIGKILL every process in ``cgroup`` and below it, as far as one look finds them.

        On version 1 SIGKILL doesn't reach a frozen process: what is frozen is thawed first, and
        what froze itself anew meanwhile is thawed afterwards, to its death.

        The groups are opened with the first step: those of a later container of the same id
        aren't touched, however late the last step is. ``stands`` is asked when they are open: a
        container that stands then had no later one when they were opened.
        """
        killed: set[int] = set()
        with tree.opened(self.directories(cgroup)) as tops:
            if not stands():
                return
            for act in (tree.thaw, lambda top: tree.kill(top, killed), tree.thaw):
                for top in tops:
                    with contextlib.suppress(OSError):
                        yield from act(top)

    async def thaw(self, cgroup: str, stands: Stands = _always) -> None:
        """Do that without holding up others."""
        await self.carry_out(self.thaw_steps(cgroup, stands))

    async def kill(self, cgroup: str, stands: Stands = _always) -> None:
        """Do that without holding up others, however many there are.

        Cancellation: it ends somewhere in between.
        """
        await self.carry_out(self.kill_steps(cgroup, stands))

    def begin_thaw(self, cgroup: str, stands: Stands = _always) -> None:
        """Thaw what can be in a moment."""
        steps = self.thaw_steps(cgroup, stands)
        begin(steps)
        steps.close()

    def begin_kill(self, cgroup: str, stands: Stands = _always) -> Steps[None] | None:
        """Kill what can be in a moment; return the rest, for `carry_out`, if there is any."""
        steps = self.kill_steps(cgroup, stands)
        done, _ = begin(steps)
        return None if done else steps

    async def carry_out(self, steps: Steps[T]) -> T:
        """Take steps: at once if they are few, else in a thread."""
        return await carry_out(steps, self._limiter)

    async def remove(self, cgroup: str) -> None:
        """Kill whatever is left in ``cgroup`` and remove its directories.

        Cancellation: the caller's deadline ends it; `remains` says what is left then.
        """
        while self._is_left(cgroup):
            await self.carry_out(self._emptying_steps(cgroup))
            if self._is_left(cgroup):
                await nap(_RETRY_SECONDS)

    def _emptying_steps(self, cgroup: str) -> Steps[None]:
        yield from self.kill_steps(cgroup)
        with tree.opened(self.directories(cgroup)) as tops:
            for top in tops:
                with contextlib.suppress(OSError):
                    yield from tree.prune(top)

    def _is_left(self, cgroup: str) -> bool:
        """Remove what can be removed at once; say whether something is left."""
        left = [path for path in self.directories(cgroup) if not _try_rmdir(path)]
        return bool(left)


def _is_seen(mount: Mount) -> bool:
    """Whether it is what its mount point shows: another mount may hide it."""
    try:
        return os.stat(mount.point).st_dev == mount.device
    except OSError:
        return False


def _is_root() -> bool:
    """Whether we are root, and not only in a user namespace (man 7 user_namespaces)."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            return file.read().split() == ["0", "0", "4294967295"]
    except OSError as error:
        if scarcity(error) is not error:
            raise scarcity(error) from error
        return True


def _is_below(path: str, cgroup: str) -> bool:
    return path == cgroup or path.startswith(cgroup + "/")


def _try_rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _counter(path: str, key: str) -> int:
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
