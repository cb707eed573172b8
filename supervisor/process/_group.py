"""The cgroup of a process's container, and the out-of-memory kills there."""

from __future__ import annotations

from ..cgroups import Steps, T, finish
from ..system import Original
from ._shared import Shared


class Group:
    """The cgroup of one container, as one process of the container needs it.

    Attributes:
        path: the cgroup; None for a container without one.
        kills: how many out-of-memory kills were counted last. Raised by `oom_kills`, and set by an
            adoption to the recorded number.
        before: how many of these hit other processes. Set by the launch of an exec; raised when a
            kill is known to have hit another process, or this process is seen alive after the kill.
    """

    def __init__(self, shared: Shared, init_record: Original, path: str | None) -> None:
        self._shared = shared
        self.path: str | None = path
        self.kills: int = 0
        self.before: int = 0
        self._init_record = init_record

    def has_container(self) -> bool:
        """Whether the container's own directory is there, not a later container's with this id."""
        return self._init_record.stands()

    def pids(self) -> set[int]:
        """Return the pids, on the host, of all processes of the container."""
        return finish(self.pid_steps())

    def pid_steps(self) -> Steps[set[int]]:
        """Return the same in small steps."""
        if self.path is None:
            return set()
        found = yield from self._shared.hierarchies.member_steps(self.path)
        # Otherwise the pids may be those of a later container with the same id.
        return found if self.has_container() else set()

    async def carry_out(self, steps: Steps[T]) -> T:
        """Carry out steps without blocking other tasks for long."""
        return await self._shared.hierarchies.carry_out(steps)

    def thaw(self) -> None:
        """Thaw the container: on cgroup version 1 SIGKILL doesn't reach a frozen process."""
        if self.path is not None:
            self._shared.hierarchies.begin_thaw(self.path, self.has_container)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel's OOM killer has killed."""
        if self.path is not None and self.has_container():
            self.kills = max(self.kills, self._counted())
        return self.kills

    def begin(self) -> None:
        """Note that all out-of-memory kills so far hit other processes."""
        self.before = self._counted()

    def explain(self) -> None:
        """Note that one of the out-of-memory kills hit another process."""
        self.before = min(self.before + 1, self.oom_kills())

    def unexplained(self) -> bool:
        """Whether there was an out-of-memory kill that may have hit this process."""
        return self._counted() > self.before

    def _counted(self) -> int:
        return self._shared.hierarchies.oom_kills(self.path)
