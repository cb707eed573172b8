"""What all parts of one supervisor share: its programs, deadlines and view of the machine."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from ..cgroups import Hierarchies, OomWatch
from ..children import Patrol, Wards
from ..rootfs import MountTable
from ..runtime import ContainerRuntime, SealedPrograms
from ..shim import Leash
from ..state import ContainerRecord
from ..stdio import NullDevice
from ..system import Lock
from ..tasks import Limit, Opener, within
from ..values import Deadlines, Reach, SupervisorClosed, pass_by

_LOOKERS = 4  # a container may hold up each for ever


class Life:
    """Whether a supervisor is open. It closes, and is closed then; there is no way back.

    Attributes:
        closing: nothing is begun any more but deletes. Stays true.
        closed: everything was released.
    """

    def __init__(self) -> None:
        self.closing: bool = False
        self.closed: bool = False

    def begin_to_close(self) -> None:
        """From now on only deletes are begun."""
        self.closing = True

    def end(self) -> None:
        """From now on nothing is begun."""
        self.closing = self.closed = True


@attrs.frozen(kw_only=True)
class Shared:
    """Shared by a supervisor, its containers and their processes.

    Attributes:
        root: the real path of the supervisor's root.
        cgroup_parent: the cgroup that the containers' own are made in.
        shim: path of the shim's program.
        deadlines: how long each operation may take.
        hierarchies: the mounted cgroups.
        boot_id: of this boot of the kernel.
        patrol: watches that shims record the ends of their processes.
        ooms: tells processes which out-of-memory kills were of others.
        programs: sealed copies of the runtimes.
        apart: by what files a shim gets into a cgroup of its own (see `group_apart`).
        null: the null device that containers get.
        mounts: what is mounted on this machine.
        wards: what killed shims have left to us.
        reach: called at each `Point`.
        leash: what new containers are on; None if they outlive us.
        life: whether the supervisor is open.
        lookers: how many threads may look at what containers have.
        opener: the process that everything was opened in.
    """

    root: str
    cgroup_parent: str
    shim: str
    deadlines: Deadlines
    hierarchies: Hierarchies
    boot_id: str
    patrol: Patrol
    ooms: OomWatch
    programs: SealedPrograms
    null: NullDevice
    mounts: MountTable
    wards: Wards
    apart: Sequence[str] = ()
    reach: Reach = pass_by
    leash: Leash | None = None
    life: Life = attrs.field(factory=Life)
    lookers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_LOOKERS))
    opener: Opener = attrs.field(factory=Opener)

    def runtime_of(self, record: ContainerRecord, lock: Lock | None) -> ContainerRuntime:
        """Return the runtime of a container, as we call it; ``lock`` is the container's."""
        return ContainerRuntime.of(
            record,
            lock=lock,
            programs=self.programs,
            tether=self.leash.tether if self.leash is not None and record.leash else None,
            deadlines=self.deadlines,
        )

    def require_open(self, container: str | None = None, *, deletes: bool = False) -> None:
        """Refuse what a supervisor that closes, or was closed, can't do any more.

        It goes on with ``deletes`` until it is closed.

        Raises:
            SupervisorClosed: it closes, or this is a forked child.
        """
        self.opener.require(container)
        if self.life.closed if deletes else self.life.closing:
            raise SupervisorClosed("its supervisor is closed", container=container)


def shielded(seconds: float) -> Limit:
    """Shield the body from outer cancellation, for ``seconds`` at most; see `within`.

    The seconds are real ones. In a forked child nothing is to be undone: there it is cancelled at
    once.
    """
    return within(seconds, shield=True)
