"""The cgroup of a process's container, and its out-of-memory kills."""

from __future__ import annotations

import os

from ..cgroups import Steps, T, finish
from ..state import ContainerLayout, ProcessLayout
from ..system import Original
from ._shared import Shared


class Group:
    """The processes of one container, as one of its processes sees them.

    Attributes:
        path: the cgroup; None for a container that has none.
        kills: how many out-of-memory kills were counted last. Raised by `oom_kills`, and set by an
            adoption to what was on record.
        before: how many of these were of other processes. Set by the launch of an exec; raised when
            a kill is known to be of another process, or the process is seen to live after the kill.
    """

    def __init__(self, shared: Shared, layout: ProcessLayout, path: str | None) -> None:
        self._shared = shared
        self.path: str | None = path
        self.kills: int = 0
        self.before: int = 0
        directory = ContainerLayout(os.path.dirname(layout.path))
        self._container_record = Original(directory.init.record)

    def has_container(self) -> bool:
        """Whether the container's directory is there: not that of a later one of the same id."""
        return self._container_record.stands()

    def pids(self) -> set[int]:
        """Return the pids, on the host, of all processes of the container."""
        return finish(self.pid_steps())

    def pid_steps(self) -> Steps[set[int]]:
        """Do that in small steps."""
        if self.path is None:
            return set()
        found = yield from self._shared.hierarchies.member_steps(self.path)
        return found if self.has_container() else set()  # else they are a later one's, of its id

    async def carry_out(self, steps: Steps[T]) -> T:
        """Take steps without holding up others."""
        return await self._shared.hierarchies.carry_out(steps)

    def thaw(self) -> None:
        """Thaw the container: on cgroup version 1 no SIGKILL reaches what is frozen."""
        if self.path is not None:
            self._shared.hierarchies.begin_thaw(self.path, self.has_container)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        if self.path is not None and self.has_container():
            self.kills = max(self.kills, self._counted())
        return self.kills

    def begin(self) -> None:
        """Take note that all out-of-memory kills so far were of other processes."""
        self.before = self._counted()

    def explain(self) -> None:
        """Take note that one of the out-of-memory kills was of another process."""
        self.before = min(self.before + 1, self.oom_kills())

    def unexplained(self) -> bool:
        """Whether there was an out-of-memory kill that may have been of this process."""
        return self._counted() > self.before

    def _counted(self) -> int:
        return self._shared.hierarchies.oom_kills(self.path)
