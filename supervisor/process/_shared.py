"""What all parts of one supervisor share: its programs, deadlines and view of the machine."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from ..cgroups import Hierarchies, OomWatch
from ..children import Patrol, Wards
from ..rootfs import MountTable
from ..runtime import ContainerRuntime, SealedPrograms
from ..state import ContainerRecord
from ..stdio import NullDevice
from ..system import Lock
from ..tasks import Limit, Opener, within
from ..values import Deadlines, Reach, SupervisorClosed, pass_by

_LOOKERS = 4  # a container may hold up each for ever


@attrs.frozen(kw_only=True)
class Shared:
    """Shared by a supervisor, its containers and their processes.

    Attributes:
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
        tether: path of the program by which runtimes that are called for leashed containers die
            with us; None if we hold no leash.
        closing: set when the supervisor begins to close: nothing is begun any more but deletes.
        lookers: how many threads may look at what containers have.
        closed: set when the supervisor has let go of everything.
        opener: the process that everything was opened in.
    """

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
    tether: str | None = None
    closing: trio.Event = attrs.field(factory=trio.Event)
    lookers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_LOOKERS))
    closed: trio.Event = attrs.field(factory=trio.Event)
    opener: Opener = attrs.field(factory=Opener)

    def runtime_of(self, record: ContainerRecord, lock: Lock | None) -> ContainerRuntime:
        """Return the runtime of a container, as we call it; ``lock`` is the container's."""
        return ContainerRuntime.of(
            record,
            lock=lock,
            programs=self.programs,
            tether=self.tether if record.leash else None,
            deadlines=self.deadlines,
        )

    def require_open(self, container: str | None = None, *, deletes: bool = False) -> None:
        """Refuse what a supervisor that closes, or was closed, can't do any more.

        It goes on with ``deletes`` until it is closed.

        Raises:
            SupervisorClosed: it closes, or this is a forked child.
        """
        self.opener.require(container)
        if (self.closed if deletes else self.closing).is_set():
            raise SupervisorClosed("its supervisor is closed", container=container)


def shielded(seconds: float) -> Limit:
    """Shield the body from outer cancellation, for ``seconds`` at most; see `within`.

    The seconds are real ones. In a forked child nothing is to be undone: there it is cancelled at
    once.
    """
    return within(seconds, shield=True)
