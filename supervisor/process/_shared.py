"""What all parts of one supervisor share: programs, deadlines and the view of the host."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from ..cgroups import Hierarchies, OomWatch
from ..children import Patrol, Wards
from ..observers import Observers
from ..rootfs import MountTable
from ..runtime import ContainerRuntime, SealedPrograms
from ..shim import Leash
from ..state import ContainerRecord, RootLayout
from ..stdio import NullDevice
from ..system import Lock
from ..tasks import Opener
from ..values import Deadlines, SupervisorClosed

_LOOKERS = 4  # threads; a container may block each of them for ever


class Life:
    """Whether a supervisor is open, closing or closed. There is no way back.

    Attributes:
        closing: only deletes may begin. Stays true after the close.
        closed: nothing may begin; everything was released.
    """

    def __init__(self) -> None:
        self.closing: bool = False
        self.closed: bool = False

    def begin_to_close(self) -> None:
        """Let only deletes begin from now on."""
        self.closing = True

    def end(self) -> None:
        """Let nothing begin from now on."""
        self.closing = self.closed = True


@attrs.frozen(kw_only=True)
class Shared:
    """What a supervisor shares with the supervised containers and processes.

    Attributes:
        root: the real path of the supervisor's root.
        cgroup_stem: the begin of the containers' cgroups, before a dash and the id; None if
            containers have no cgroup of their own.
        runtime_root: where runtimes keep their state, unless the user names another place.
        shim: the path of the shim's program.
        deadlines: how long each operation may take.
        hierarchies: the mounted cgroups.
        boot_id: the kernel's id of this boot.
        patrol: checks that shims record the exit statuses of ended processes.
        ooms: tells each process which out-of-memory kills hit other processes.
        programs: sealed copies of the runtimes.
        apart: the files by which a shim moves into a separate cgroup (see `group_apart`).
        null: the null device that containers get.
        mounts: what is mounted on this host.
        wards: the processes that killed shims have left to us.
        observers: notified of what happens to any container.
        leash: the leash of new containers; None if containers outlive us.
        life: whether the supervisor is open.
        lookers: limits the threads that read files of containers.
        opener: the operating-system process that opened everything.
    """

    root: str
    cgroup_stem: str | None
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
    observers: Observers = attrs.field(factory=Observers)
    leash: Leash | None = None
    runtime_root: str = attrs.field(
        init=False,
        default=attrs.Factory(lambda one: RootLayout(one.root).runtime_root, takes_self=True),
    )
    life: Life = attrs.field(factory=Life)
    lookers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_LOOKERS))
    opener: Opener = attrs.field(factory=Opener)

    def runtime_of(self, record: ContainerRecord, lock: Lock | None) -> ContainerRuntime:
        """Return a container's runtime, set up for our calls; ``lock`` is the container's."""
        return ContainerRuntime.of(
            record,
            lock=lock,
            programs=self.programs,
            tether=self.leash.tether if self.leash is not None and record.leash else None,
            deadlines=self.deadlines,
        )

    def require_open(self, container: str | None = None, *, deletes: bool = False) -> None:
        """Refuse a new operation if the supervisor is closing or closed.

        A closing supervisor still allows ``deletes``.

        Raises:
            SupervisorClosed: the operation isn't allowed any more, or this is a forked child.
        """
        self.opener.require(container)
        if self.life.closed if deletes else self.life.closing:
            raise SupervisorClosed("its supervisor is closed", container=container)
