"""A supervisor: the mapping of its containers; create, adopt, delete what is broken."""

from __future__ import annotations

import contextlib
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
from .process import Shared, shielded
from .recovery import Broken, Recovery, discard, in_flight
from .runtime import Runtime
from .state import RootLayout
from .system import scarce
from .tasks import nap, protected, undoing, within
from .values import (
    ContainerNotFound,
    SupervisorClosed,
    SupervisorError,
    check_flag,
    require_known,
)

logger: Final = logging.getLogger("supervisor")

DESCRIPTORS_PER_CONTAINER = 4
_POLL_SECONDS = 0.005


@protected
class Supervisor(Mapping[str, Container]):
    """The containers below one root: a mapping from their ids.

    Made by `open_supervisor`. ``list(sup)`` gives the ids; looking up one that isn't there
    raises `ContainerNotFound`.

    Attributes:
        root: the real path of its root.
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
        """The containers that can't be supervised, by id: why, and where their files are.

        `adopt` looks at them again, after a repair by hand; `delete_broken` removes one.
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
        """Make a container, whose init waits to be started.

        Args:
            id: 1 to 128 of ``A-Z a-z 0-9 _ . + -``, the first a letter or a digit; unique under
                this root.
            bundle: a `Bundle`, or the path of one. It is read now and never written;
                changing it later changes nothing for this container.
            options: see `CreateOptions`: streams, what the program gets in place of the bundle's,
                labels, and what a checkpoint is restored from.

        Raises:
            InvalidValue, BundleInvalid: an argument can't work; nothing was touched.
            ContainerExists: the id is taken.
            IdsExhausted: no ids are left for a user namespace of its own.
            SupervisorClosed: the supervisor is, or was meanwhile.
            ProgramNotFound, ProgramNotExecutable: there is no such program inside, or it can't be
                run; some of that only `Container.start` can tell.
            RuntimeFailed: the runtime couldn't for another reason; says what it said.
            CreateTimeout: it took longer than ``deadlines.create``.
            ShimNotFound, ShimExited, RuntimeNotFound, DiskFull, TooManyFiles: as they say.
                Whatever is raised, nothing is left behind; if even the clean-up failed, the
                container is listed in ``broken``.

        Cancellation: what was begun is undone, shielded, within ``deadlines.cleanup``.

        Crash: the next open finds it, created; or removes what was begun.
        """
        require_known(options, CreateOptions, "create")
        self._require_open()
        await self._await_in_flight(id)
        self._registry.check_free(id)
        with scarce():
            request = CreateRequest(**options)
            core = await create(
                self._shared,
                self._nursery,
                id,
                bundle if isinstance(bundle, Bundle) else Bundle.load(bundle),
                request,
                runtime=self.runtime,
                making=partial(self._making, id),
                turn=self._creates,
                gone=self._registry.gone,
            )
            return self._registry.add(core)

    @contextlib.contextmanager
    def _making(self, id: str) -> Iterator[None]:
        """Hold the id for the time of a create, which ends, undone, when we close."""
        with self._registry.making(id), self._operations.under_way():
            yield

    def _require_open(self) -> None:
        self._shared.opener.require()
        if self._shared.life.closing:
            raise SupervisorClosed(f"the supervisor of {self.root} is closed")

    async def _await_in_flight(self, id: str) -> None:
        """Wait, for ``deadlines.shim``, while others make or remove one of this id."""
        layout = RootLayout(self.root).container(id)
        if isinstance(self._registry.get(id), Held | Making) or not in_flight(layout):
            return
        with within(self._shared.deadlines.shim):
            while in_flight(layout):
                await nap(_POLL_SECONDS)
        self._require_open()
        if not isinstance(self._registry.get(id), Making) and os.path.lexists(layout.path):
            await self.adopt()

    @undoing
    async def adopt(self, *, delete_unstarted: bool = False) -> list[Container]:
        """Take over the containers below the root that aren't supervised from here yet.

        Opening does this once; later it finds what other supervisors have let go of, or made.
        Broken ones are looked at again, and those that couldn't be deleted are deleted. Two calls
        go one after the other.

        Args:
            delete_unstarted: delete those that were created and never started, instead of
                offering them.

        Returns:
            The containers that are new here. Broken ones are listed in ``broken``.

        Raises:
            DiskFull, TooManyFiles: the machine can't take them over just now.
            DeadlineExpired: it took longer than ``deadlines.recovery``.

        Cancellation: those that were taken over stay; the others are left as they were.
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
        """Remove a container that is listed in ``broken``, and whatever of it still runs.

        Its files needn't be sound. What is killed is what is in its cgroup (the recorded one,
        or the one that this supervisor would have given it), what its shims watch, and they.

        Raises:
            ContainerNotFound: there is no broken one of that id.
            InvalidValue: its directory is somebody else's, or never was a container's: nothing is
                deleted because it lies below the root.
            ContainerLocked: another supervisor supervises it.
            CleanupIncomplete: something of it is left; it stays in ``broken``.

        Cancellation: once begun it is done to its end, or to its deadline.

        Crash: what is left is broken, or removed, at the next open.
        """
        self._require_open()
        async with self._adoptions.lock:
            entry = self._registry.get(id) if isinstance(id, str) else None
            if not isinstance(entry, Failed):
                raise ContainerNotFound(
                    f"no broken one under {self.root}", container=f"{id!s:.200}"
                )
            if entry.core is not None:  # ours, and only its delete has failed
                await delete(entry.core, force=True)
                return
            layout = RootLayout(self.root).container(id)
            presumed = presumed_record(self._shared, self.runtime, id)
            recovery = Recovery(
                shared=self._shared, nursery=self._nursery, gone=self._registry.gone
            )
            await discard(recovery, layout, presumed)
            self._registry.forget_broken(id)

    # ---- closing ------------------------------------------------------------------------

    @undoing
    async def _close(self) -> None:
        """End what is under way, but for deletes; delete those that are on the leash: shielded.

        Whoever goes on afterwards would do it with a container that isn't ours any more, or with a
        later one of its id.
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
        """Return what whoever deletes something of ours holds just now."""
        locks = [self._adoptions.lock, *(core.deleting for core in self._registry.cores)]
        return [lock for lock in locks if lock.locked()]

    def _let_go(self) -> None:
        """Release the locks: after the tasks have ended, which hold those of execs."""
        for core in self._registry.cores:
            core.let_go()


@trio.lowlevel.enable_ki_protection
async def _delete_quietly(box: Container) -> None:
    try:
        await box.delete(force=True)
    except (SupervisorError, OSError) as error:
        logger.warning("at the end of its supervisor: %s", error)
