"""The public `Supervisor`: a mapping of containers, with create, adopt and delete_broken."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Unpack

import trio

from ._adoptions import Adoptions
from ._registry import REMEDY, Failed, Held, Making, Registry
from .bundle import Bundle
from .container import (
    Container,
    CreateOptions,
    CreateRequest,
    Operations,
    create,
    delete,
    end_under_way,
    presumed_record,
)
from .observers import Gone, weakly
from .process import Shared
from .recovery import Broken, Recovery, discard, in_flight
from .runtime import Runtime
from .state import ContainerLayout, RootLayout
from .tasks import nap, protected, shielded, undoing, within
from .values import (
    ContainerExists,
    ContainerNotFound,
    SupervisorClosed,
    SupervisorError,
    check_flag,
    happened_to,
    require_known,
)

logger: Final = logging.getLogger("supervisor")

DESCRIPTORS_PER_CONTAINER = 4
_POLL_SECONDS = 0.005


@protected
class Supervisor(Mapping[str, Container]):
    """The containers below one root: a mapping from their ids.

    Made by `open_supervisor`. ``list(sup)`` gives the ids; looking up a missing id raises
    `ContainerNotFound`.

    Attributes:
        root: the real path of the root.
        runtime: the `Runtime` that new containers get.
    """

    def __init__(
        self,
        shared: Shared,
        nursery: trio.Nursery,
        *,
        runtime: Runtime,
        creates: trio.CapacityLimiter,
    ) -> None:
        self._shared = shared
        self._nursery = nursery
        self._creates = creates
        self._registry = Registry(shared.root)
        shared.observers.add(Gone, weakly(self._registry.note_gone))
        self._operations = Operations()  # creates and adoptions
        self._adoptions = Adoptions(nursery, self._registry)
        self.root: str = shared.root
        self.runtime: Runtime = runtime

    def __repr__(self) -> str:
        return f"<supervisor.Supervisor {self.root!r}: {len(self)} containers>"

    def __getitem__(self, id: str) -> Container:
        entry = self._registry.get(id)
        if isinstance(entry, Held):
            return entry.container
        hint = f"; it is broken, {REMEDY}" if isinstance(entry, Failed) else ""
        raise ContainerNotFound(f"there is none under {self.root}{hint}", container=f"{id!s:.200}")

    def __iter__(self) -> Iterator[str]:
        return iter([one.container.id for one in self._registry.held])

    def __len__(self) -> int:
        return len(self._registry.held)

    @property
    def broken(self) -> Mapping[str, Broken]:
        """The containers that can't be supervised, by id, each with the reason and the path.

        After a repair by hand, `adopt` looks at them again; `delete_broken` removes one.
        """
        return MappingProxyType(self._registry.broken)

    @property
    def capacity(self) -> int:
        """How many more containers the limit on open files allows (RLIMIT_NOFILE, soft)."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = limit - len(os.listdir("/proc/self/fd"))
        return max(0, free // DESCRIPTORS_PER_CONTAINER)

    @undoing
    async def create(
        self,
        id: str,
        bundle: Bundle | str | os.PathLike[str],
        **options: Unpack[CreateOptions],
    ) -> Container:
        """Create a container; the init waits to be started.

        Args:
            id: 1 to 128 of ``A-Z a-z 0-9 _ . + -``, the first a letter or a digit; unique under
                this root.
            bundle: a `Bundle`, or the path of one. The bundle is read now and never written; a
                later change of the bundle changes nothing for this container.
            options: see `CreateOptions`: streams, the values that replace the bundle's, labels,
                and the checkpoint to restore.

        Raises:
            InvalidValue, BundleInvalid: an argument can't work; nothing was touched.
            ContainerExists: the id is in use.
            IdsExhausted: no ids are left for the container's own user namespace.
            SupervisorClosed: the supervisor is closed, or was closed meanwhile.
            ProgramNotFound, ProgramNotExecutable: there is no such program inside, or the program
                can't be run; some of these failures only show in `Container.start`.
            RuntimeFailed: the runtime failed for another reason; quotes the runtime.
            CreateTimeout: the create took longer than ``deadlines.create``.
            ShimNotFound, ShimExited, RuntimeNotFound, DiskFull, TooManyFiles: see each.
                After any error nothing is left behind; if even the clean-up failed, the container
                is listed in ``broken``.

        Cancellation: the create is undone, shielded, within ``deadlines.cleanup``.

        Crash: the next open finds the container *created*, or removes the unfinished create.
        """
        self._require_open()
        require_known(options, CreateOptions, "create")
        layout = RootLayout(self.root).container(id)
        await self._await_in_flight(layout)
        if self._registry.get(id) is None and os.path.lexists(layout.path):
            raise ContainerExists(  # before the id is reserved: an adoption may find that one
                f"a container of that id exists already under {self.root}", container=id
            )
        with happened_to(id), self._registry.making(id), self._operations.under_way():
            core = await create(
                self._shared,
                self._nursery,
                layout,
                bundle if isinstance(bundle, Bundle) else Bundle.load(bundle),
                CreateRequest(**options),
                runtime=self.runtime,
                turn=self._creates,
            )
            return self._registry.add(core)
        raise SupervisorClosed("the supervisor was closed before the create was done", container=id)

    def _require_open(self) -> None:
        self._shared.opener.require()
        if self._shared.life.closing:
            raise SupervisorClosed(f"the supervisor of {self.root} is closed")

    async def _await_in_flight(self, layout: ContainerLayout) -> None:
        """Wait, up to ``deadlines.shim``, while others make or remove this container."""
        if isinstance(self._registry.get(layout.id), Held | Making) or not in_flight(layout):
            return
        with within(self._shared.deadlines.shim):
            while in_flight(layout):
                await nap(_POLL_SECONDS)
        self._require_open()
        if not isinstance(self._registry.get(layout.id), Making) and os.path.lexists(layout.path):
            await self.adopt()

    @undoing
    async def adopt(self, *, delete_unstarted: bool = False) -> list[Container]:
        """Adopt the containers below the root that this supervisor doesn't own yet.

        Opening does this once. A later call finds containers that other supervisors have released
        or made. Broken containers are looked at again, and failed deletes are repeated. Two calls
        run one after the other.

        Args:
            delete_unstarted: delete containers that were never started, instead of adopting them.

        Returns:
            The containers that are new here. Broken ones are listed in ``broken``.

        Raises:
            DiskFull, TooManyFiles: the machine lacks the resources just now.
            DeadlineExpired: the adoption took longer than ``deadlines.recovery``.

        Cancellation: adopted containers stay adopted; the others are unchanged.
        """
        check_flag(delete_unstarted, "delete_unstarted")
        self._require_open()
        with self._operations.under_way():
            adopted = await self._adoptions.adopt(self._shared, delete_unstarted=delete_unstarted)
            again = partial(self.adopt, delete_unstarted=delete_unstarted)
            self._adoptions.adopt_later(self._shared, again)
            return adopted
        raise SupervisorClosed(f"the supervisor of {self.root} was closed meanwhile")

    @undoing
    async def delete_broken(self, id: str) -> None:
        """Remove a container that is listed in ``broken``, and kill all processes that remain.

        The files may be damaged. Killed are all processes in the container's cgroup (the recorded
        cgroup, or the one that this supervisor would have chosen), the processes that the
        container's shims watch, and the shims.

        Raises:
            ContainerNotFound: there is no broken container with that id.
            InvalidValue: the directory isn't ours, or was never a container's: a place below the
                root is no reason to delete a directory.
            ContainerLocked: another supervisor owns the container.
            CleanupIncomplete: something is left; the container stays in ``broken``.

        Cancellation: a removal that has begun runs to the end, or to the deadline.

        Crash: at the next open, the rest is listed as broken, or removed.
        """
        self._require_open()
        async with self._adoptions.lock:
            entry = self._registry.get(id) if isinstance(id, str) else None
            if not isinstance(entry, Failed):
                raise ContainerNotFound(
                    f"no broken one under {self.root}", container=f"{id!s:.200}"
                )
            if entry.core is not None:  # ours: only the delete has failed
                await delete(entry.core, force=True)
                return
            layout = RootLayout(self.root).container(id)
            presumed = presumed_record(self._shared, self.runtime, id)
            recovery = Recovery(shared=self._shared, nursery=self._nursery)
            await discard(recovery, layout, presumed)
            self._registry.forget_broken(id)

    # ---- closing ------------------------------------------------------------------------

    @undoing
    async def _close(self) -> None:
        """End all operations except deletes, and delete the containers on the leash, shielded.

        An operation that went on after the close would work on a container that isn't ours any
        more, or on a later container with the same id.
        """
        self._shared.life.begin_to_close()
        deadlines = self._shared.deadlines
        with shielded(deadlines.cleanup + deadlines.kill):
            await end_under_way([self._operations])
            await end_under_way([core.operations for core in self._registry.cores])
            leashed = [box for box in self.values() if box.leashed and not box.foreign]
            async with trio.open_nursery() as nursery:
                for box in leashed:
                    nursery.start_soon(_delete_quietly, box, name=f"{box.id}/init: delete")
            while deleting := self._deleting():
                async with deleting[0]:  # each has a deadline
                    pass

    def _deleting(self) -> list[trio.Lock]:
        """Return the locks of the deletes that are running now."""
        locks = [self._adoptions.lock, *(core.deleting for core in self._registry.cores)]
        return [lock for lock in locks if lock.locked()]

    def _let_go(self) -> None:
        """Release the containers' locks; the tasks, which hold the execs' locks, have ended."""
        for core in self._registry.cores:
            core.let_go()


@trio.lowlevel.enable_ki_protection
async def _delete_quietly(box: Container) -> None:
    try:
        await box.delete(force=True)
    except (SupervisorError, OSError) as error:
        logger.warning("when the supervisor closed: %s", error)
