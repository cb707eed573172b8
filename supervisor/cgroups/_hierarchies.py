"""The cgroup of one container in every mounted hierarchy: version 1, 2 or both.

A container's cgroup is named once, by ``linux.cgroupsPath`` in the spec; runtimes make the cgroup
below the mount point of each hierarchy. Source: man 7 cgroups; kernel Documentation/admin-guide,
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
from ..values import raise_if_scarce
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
        hierarchies: for each one the mount in which runtimes make cgroups.
        usable: whether we may make cgroups: root may, an ordinary user mostly may not.
        named: whether a container gets a cgroup of its own even if we may not make one. For root
            yes: if the runtime can't make the cgroup, the runtime reports that; and without its own
            cgroup a container would share that of any other container with the same id. An ordinary
            user's runtime does without a cgroup, unless one is named.
    """

    hierarchies: tuple[Mount, ...]
    usable: bool
    named: bool
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(_THREADS), eq=False, repr=False
    )

    @classmethod
    def discover(cls, mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
        """Read the hierarchies from the mount table (man 5 proc_pid_mountinfo).

        Raises:
            TooManyFiles: no descriptor was left.
        """
        try:
            with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
                mounts = choose(parse(file), _is_seen)
        except OSError as error:
            raise_if_scarce(error)
            raise
        able = [not mount.read_only and os.access(mount.point, os.W_OK) for mount in mounts]
        named = bool(mounts) if _is_root() else bool(able) and all(able)
        return cls(tuple(mounts), named and any(able), named)

    @property
    def writable(self) -> list[Mount]:
        """The hierarchies that aren't read-only."""
        return [mount for mount in self.hierarchies if not mount.read_only]

    @property
    def mounts(self) -> list[str]:
        """The mount points of the writable hierarchies."""
        return [mount.point for mount in self.writable]

    @property
    def memory_mounts(self) -> list[str]:
        """The mount points of the hierarchies that count memory."""
        return [mount.point for mount in self.hierarchies if mount.counts_memory]

    def directories(self, cgroup: str) -> list[str]:
        """Return the directories of ``cgroup``, existing or not."""
        return [mount.point + cgroup for mount in self.hierarchies if not mount.read_only]

    def remains(self, cgroup: str) -> list[str]:
        """Return the directories of ``cgroup`` that exist."""
        return [path for path in self.directories(cgroup) if os.path.isdir(path)]

    def exists(self, cgroup: str) -> bool:
        """Whether ``cgroup`` has a directory in some hierarchy."""
        return any(map(os.path.exists, self.directories(cgroup)))

    def oom_kills(self, cgroup: str | None) -> int:
        """Return how many processes in ``cgroup`` the kernel's OOM killer has killed."""
        if cgroup is None:
            return 0
        counts = [0]
        for mount in self.memory_mounts:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    counts.append(_counter(f"{mount}{cgroup}/{name}", "oom_kill"))
        return max(counts)

    # ---- the processes in a cgroup --------------------------------------------------------

    def members(self, cgroup: str) -> set[int]:
        """Return the pids in ``cgroup`` and below it, in all hierarchies."""
        return finish(self.member_steps(cgroup))

    def member_steps(self, cgroup: str) -> Steps[set[int]]:
        """As `members`, in small steps."""
        pids: set[int] = set()
        with tree.opened(self.directories(cgroup)) as tops:
            for top in tops:
                with contextlib.suppress(OSError):
                    pids |= yield from tree.members(top)
        return pids

    async def list_members(self, cgroup: str) -> set[int]:
        """As `members`, without holding up other tasks, however many processes there are."""
        return await self.carry_out(self.member_steps(cgroup))

    def holds(self, cgroup: str, pid: int) -> bool:
        """Whether the process is in ``cgroup`` or below it in some hierarchy.

        If only a part of a hierarchy is mounted, the kernel's name of the process's cgroup begins
        further up than ours.
        """
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.rstrip("\n").split(":", 2)[1:] for line in file]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return pid in self.members(cgroup)  # gone or hidden (hidepid): groups list it still
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # only a group below ours is that deep
                return pid in self.members(cgroup)
            raise_if_scarce(error)
            raise
        return any(
            mount.is_of(controllers) and _is_below(path, mount.path_of(cgroup))
            for controllers, path in lines
            for mount in self.hierarchies
        )

    def frozen(self, cgroup: str) -> bool:
        """Whether a process that enters ``cgroup`` is frozen at once."""
        with tree.opened(self.directories(cgroup)) as tops:
            return any(tree.is_frozen(top) for top in tops)

    # ---- thaw, kill, remove ---------------------------------------------------------------

    def thaw_steps(self, cgroup: str, stands: Stands = _always) -> Steps[None]:
        """Thaw ``cgroup`` and every group below, in small steps; ``stands``: see `kill_steps`."""
        with tree.opened(self.directories(cgroup)) as tops:
            for top in tops if stands() else ():
                with contextlib.suppress(OSError):
                    yield from tree.thaw(top)

    def kill_steps(self, cgroup: str, stands: Stands = _always) -> Steps[None]:
        """SIGKILL every process in ``cgroup`` and below that one look finds.

        On version 1 SIGKILL doesn't reach a frozen process: so frozen groups are thawed first, and
        those that froze themselves meanwhile are thawed afterwards, and die.

        The first step opens the groups: those of a later container with the same id aren't touched,
        however late the last step is. ``stands`` is called when the groups are open: if our
        container still stands then, the open groups are its own.
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
        """As `thaw_steps`, without holding up other tasks."""
        await self.carry_out(self.thaw_steps(cgroup, stands))

    async def kill(self, cgroup: str, stands: Stands = _always) -> None:
        """As `kill_steps`, without holding up other tasks, however many processes there are.

        Cancellation: the work stops half-way.
        """
        await self.carry_out(self.kill_steps(cgroup, stands))

    def begin_thaw(self, cgroup: str, stands: Stands = _always) -> None:
        """Thaw as much as a moment allows."""
        steps = self.thaw_steps(cgroup, stands)
        begin(steps)
        steps.close()

    def begin_kill(self, cgroup: str, stands: Stands = _always) -> Steps[None] | None:
        """Kill as much as a moment allows; return the rest for `carry_out`, or None."""
        steps = self.kill_steps(cgroup, stands)
        done, _ = begin(steps)
        return None if done else steps

    async def carry_out(self, steps: Steps[T]) -> T:
        """Take steps: at once if they are few, else in a thread."""
        return await carry_out(steps, self._limiter)

    async def remove(self, cgroup: str) -> None:
        """Kill all processes in ``cgroup`` and remove the directories.

        Cancellation: the caller's deadline ends the work; `remains` then says what is left.
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
        """Remove what can be removed at once; return whether something is left."""
        left = False
        for path in self.directories(cgroup):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                left = True
        return left


def _is_seen(mount: Mount) -> bool:
    """Whether the mount point shows this mount: another mount may hide it."""
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
        raise_if_scarce(error)
        return True


def _is_below(path: str, cgroup: str) -> bool:
    return path == cgroup or path.startswith(cgroup + "/")


def _counter(path: str, key: str) -> int:
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
