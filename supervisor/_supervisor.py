"""A supervisor: the nursery that owns the tasks, and the registry of containers."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs
import trio

from ._leash import cleanup_list, ephemeral_root, held_leash
from .bundle import Bundle, Gate
from .cgroups import Hierarchies, OomWatch, group_apart
from .children import Patrol, Wards, reap_let_go
from .container import (
    CheckpointOptions,
    Container,
    Core,
    Draft,
    Estate,
    Order,
    Site,
    UnderWay,
    claimed_ids,
    delete,
    dispose,
    draft,
    end_under_way,
    launch_init,
    make_container,
    presumed_record,
    require_empty,
    require_free,
    sweep,
    user_of,
)
from .directories import durable_root, shared_runtime_root
from .native import check_program, find_binary
from .process import Shared, shielded
from .recovery import DELETED_ELSEWHERE, Adopted, Broken, Recovery, adopt_all, discard, in_flight
from .rootfs import Account, GroupArgument, GroupsArgument, MountTable, UserArgument, check_account
from .runtime import Runtime, SealedPrograms
from .shim import Leash
from .spec import RlimitArgument, SeccompArgument, SignalArgument, check_privileges, check_stop
from .state import ContainerLayout, RootLayout, check_id
from .stdio import NullDevice, StdioArgument, TerminalArgument, opened, plan
from .system import boot_id, scarce
from .tasks import (
    begin_watch,
    forked,
    lasting_nursery,
    nap,
    note_process,
    opening,
    protected,
    refuse_forked,
    undoing,
    waiting,
    within,
)
from .values import (
    CleanupIncomplete,
    ContainerExists,
    ContainerNotFound,
    Deadlines,
    InvalidValue,
    Reach,
    RuntimeNotFound,
    ShimNotFound,
    State,
    SupervisorClosed,
    SupervisorError,
    check_flag,
    check_int,
    check_kind,
    check_path,
    check_text,
    happened_to,
    pass_by,
)

logger: Final = logging.getLogger("supervisor")

DEFAULT_CGROUP_PARENT = "/trio-supervisor"
DESCRIPTORS_PER_CONTAINER = 4
MAX_AT_ONCE = 1 << 20
_POLL_SECONDS = 0.005
_LATER_SECONDS = 0.05

_REMEDY = "repair it, or `await supervisor.delete_broken(id)`"


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
        root: str,
        runtime: Runtime,
        cgroup_parent: str,
        leash: Leash | None,
        creates: trio.CapacityLimiter,
    ) -> None:
        self._shared = shared
        self._nursery = nursery
        self._layout = RootLayout(root)
        self._cgroup_parent = cgroup_parent
        self._leash = leash
        self._creates = creates
        self._containers: dict[str, Container] = {}
        self._cores: dict[str, Core] = {}
        self._making: dict[str, UnderWay] = {}
        self._adoptions: set[UnderWay] = set()
        self._looking = False
        self._adopting = trio.Lock()
        self._broken: dict[str, Broken] = {}
        self.root = root
        self.runtime = runtime

    def __repr__(self) -> str:
        return f"<supervisor.Supervisor {self.root!r}: {len(self)} containers>"

    def __getitem__(self, id: str) -> Container:
        try:
            return self._containers[id]
        except KeyError:
            hint = f"; it is broken, {_REMEDY}" if id in self._broken else ""
            raise ContainerNotFound(
                f"there is none under {self.root}{hint}", container=f"{id!s:.200}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._containers))

    def __len__(self) -> int:
        return len(self._containers)

    @property
    def broken(self) -> Mapping[str, Broken]:
        """The containers that can't be supervised, by id: why, and where their files are.

        `adopt` looks at them again, after a repair by hand; `delete_broken` removes one.
        """
        return MappingProxyType(dict(self._broken))

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
        *,
        stdin: StdioArgument = None,
        stdout: StdioArgument = None,
        stderr: StdioArgument = None,
        terminal: TerminalArgument = False,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        labels: Mapping[str, str] | None = None,
        on_shim_lost: str = "kill",
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_options: CheckpointOptions | None = None,
        user: UserArgument = None,
        group: GroupArgument = None,
        extra_groups: GroupsArgument = None,
        umask: int | None = None,
        gate: Gate | None = None,
        capabilities: Iterable[str] | None = None,
        rlimits: Mapping[str, RlimitArgument] | None = None,
        oom_score_adj: int | None = None,
        seccomp: SeccompArgument | None = None,
        stop_signal: SignalArgument | None = None,
        stop_grace: float | None = None,
    ) -> Container:
        """Make a container, whose init waits to be started.

        Args:
            id: 1 to 128 of ``A-Z a-z 0-9 _ . + -``, the first a letter or a digit; unique under
                this root.
            bundle: a `Bundle`, or the path of one. It is read now and never written;
                changing it later changes nothing for this container.
            stdin, stdout, stderr: DEVNULL (the default), PIPE, a path, an open file, a `Fifo`;
                for output also LOG or a `LogFile`, for stderr also STDOUT. A file is copied from
                or to: the container never has it. Output is appended.
            terminal: whether these three are a terminal instead: True, or its initial
                ``(columns, rows)``.
            args: the program and its arguments, in place of the bundle's; the init of a bundle
                with ``init=True`` stays in front of them.
            env: variables that are set besides the bundle's, or in their place.
            cwd: the working directory, absolute, inside; in place of the bundle's.
            labels: kept with it, for the user.
            on_shim_lost: what is done if a shim of it is killed: ``"kill"`` its process too, or
                ``"keep"`` it, watched by its pidfd. The supervisor then holds its fifos open
                beside the shim. Not with a terminal or a log.
            checkpoint: the directory of a checkpoint to restore it from: then it runs at once.
            checkpoint_options: what CRIU has to be told, the same as at the checkpoint.
            user, group, extra_groups, umask: as for `Bundle.from_rootfs`, in place of the bundle's.
                Another user has none of the bundle's groups.
            gate: what stands before its program: for a `ContainerPool`, which creates with it.
            capabilities, oom_score_adj, seccomp: as for `Bundle.from_rootfs`, in place of the
                bundle's. By default they are the bundle's: a loaded one without a word on them
                has no limits of ours.
            rlimits: as for `Bundle.from_rootfs`, besides the bundle's, or in their place.
            stop_signal, stop_grace: as for `Bundle.from_rootfs`, in place of the bundle's.

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
        self._require_open()
        await self._await_in_flight(id)
        self._check_free(id)
        with scarce():
            init = self._layout.container(id).init
            order = Order(
                stdio=plan(init, stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal),
                args=args,
                env=env,
                cwd=cwd,
                labels=labels,
                on_shim_lost=on_shim_lost,
                checkpoint=checkpoint,
                options=None
                if checkpoint_options is None
                else check_kind(checkpoint_options, CheckpointOptions, "checkpoint_options"),
                gate=None if gate is None else check_kind(gate, Gate, "gate"),
                privileges=check_privileges(
                    capabilities=capabilities,
                    rlimits=rlimits,
                    oom_score_adj=oom_score_adj,
                    seccomp=seccomp,
                ),
                stop=check_stop(stop_signal, stop_grace),
            )
            account = check_account(user=user, group=group, extra_groups=extra_groups, umask=umask)
            return await self._create(id, bundle, order, account)

    async def _create(
        self, id: str, bundle: Bundle | str | os.PathLike[str], order: Order, account: Account
    ) -> Container:
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        user = await user_of(loaded, account)
        if user is not None:
            order = attrs.evolve(order, user=user)
            self._check_free(id)  # it was looked up in a thread
        with claimed_ids(loaded, self._layout.container(id).path) as claim:
            drafted = draft(self._shared, self._site(id), loaded, order, claim)
            with (
                happened_to(id),
                self._being_made(id),
                opened(drafted.stdio, self._shared.null) as ready,
                waiting(),
            ):
                async with self._creates:
                    core = await self._make(drafted.having(ready))
                return self._register(core)
        raise SupervisorClosed("its supervisor was closed before it was made", container=id)

    @contextlib.contextmanager
    def _being_made(self, id: str) -> Iterator[None]:
        """Hold the id for the time of a create, which ends, undone, when we close."""
        making = self._making[id] = UnderWay()
        try:
            with making.scope:
                yield
        finally:
            del self._making[id]
            making.over.set()

    def _require_open(self) -> None:
        self._shared.opener.require()
        if self._shared.closing.is_set():
            raise SupervisorClosed(f"the supervisor of {self.root} is closed")

    def _site(self, id: str) -> Site:
        return Site(
            id=id,
            root=self.root,
            runtime=self.runtime,
            runtime_root=self._layout.runtime_root,
            cgroup_parent=self._cgroup_parent,
            leash=self._leash is not None,
        )

    async def _await_in_flight(self, id: str) -> None:
        """Wait, for ``deadlines.shim``, while others make or remove one of this id."""
        layout = self._layout.container(check_id(id))
        if id in self._containers or id in self._making or not in_flight(layout):
            return
        with within(self._shared.deadlines.shim):
            while in_flight(layout):
                await nap(_POLL_SECONDS)
        self._require_open()
        if id not in self._making and os.path.lexists(layout.path):
            await self.adopt()

    def _check_free(self, id: str) -> None:
        check_id(id)
        if id in self._containers or id in self._making:
            raise ContainerExists(f"there is one under {self.root} already", container=id)
        if id in self._broken:
            raise ContainerExists(
                f"there is a broken one at {self._broken[id].path}, {_REMEDY}: "
                f"{self._broken[id].reason}",
                container=id,
            )

    async def _make(self, drafted: Draft) -> Core:
        record = drafted.record
        require_free(record)
        await require_empty(self._shared, record)
        layout = self._layout.container(record.id)
        cleanup = None
        if self._leash is not None:
            cleanup = cleanup_list(record, self._shared.hierarchies, drafted.bundle)
        lock = make_container(
            self.root,
            record,
            drafted.spec,
            drafted.build_rootfs,
            cleanup=cleanup,
            claim=drafted.claim,
            reach=self._shared.reach,
        )
        core = Core(
            shared=self._shared,
            nursery=self._nursery,
            layout=layout,
            record=record,
            lock=lock,
            leash=self._leash,
            gone=self._gone,
        )
        core.note("create")
        try:
            await launch_init(core, drafted)
        except BaseException as error:
            ran = not isinstance(error, RuntimeNotFound | ShimNotFound)
            await self._undo(Estate(layout=layout, record=record, lock=lock, ran=ran))
            raise
        return core

    async def _undo(self, estate: Estate) -> None:
        """Remove what a failed create has left; what can't be removed is listed."""
        if forked():
            return
        try:
            await dispose(self._shared, estate)
        except CleanupIncomplete as error:
            self._gone(estate.record.id, error)
            estate.lock.release()

    # ---- the registry -------------------------------------------------------------------

    def _register(self, core: Core) -> Container:
        container = self._containers.get(core.record.id)
        if container is None:
            container = self._containers[core.record.id] = Container(core)
        self._cores[container.id] = core
        self._broken.pop(container.id, None)
        return container

    def _gone(self, id: str, error: CleanupIncomplete | None) -> None:
        """Take note of a container that was deleted, or that couldn't be."""
        self._containers.pop(id, None)
        self._broken.pop(id, None)
        if error is None:
            self._cores.pop(id, None)
        else:  # its core stays, and its lock with it, until it is deleted or we close
            path = self._layout.container(id).path
            self._broken[id] = Broken(id=id, path=path, reason=str(error))

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
        recovery = Recovery(
            shared=self._shared,
            nursery=self._nursery,
            root=self.root,
            gone=self._gone,
            delete_unstarted=delete_unstarted,
        )
        self._require_open()
        operation = UnderWay()
        self._adoptions.add(operation)
        try:
            with operation.scope:
                adopted = await self._adopt(recovery)
                self._look_later(delete_unstarted)
                return adopted
        finally:
            self._adoptions.discard(operation)
            operation.over.set()
        raise SupervisorClosed(f"the supervisor of {self.root} was closed meanwhile")

    def _look_later(self, delete_unstarted: bool) -> None:
        """Adopt what is in flight still when that has ended, in a task of its own."""
        if not self._looking and any(map(in_flight, self._unsupervised())):
            self._looking = True
            self._nursery.start_soon(self._adopt_later, delete_unstarted)

    async def _adopt_later(self, delete_unstarted: bool) -> None:
        shared = self._shared
        with within(shared.deadlines.cleanup + shared.deadlines.kill):
            while any(map(in_flight, self._unsupervised())):
                await nap(_LATER_SECONDS, still=False)
        self._looking = False
        try:
            await self.adopt(delete_unstarted=delete_unstarted)
        except SupervisorError as error:
            logger.warning("what was being made or removed isn't adopted: %s", error)

    async def _adopt(self, recovery: Recovery) -> list[Container]:
        async with self._adopting:
            found = Adopted()
            sweep(self.root)
            self._forget_deleted()
            try:
                await adopt_all(recovery, self._unsupervised(), self._cores, found)
            finally:
                adopted = self._take_note(found)
            return adopted

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
        async with self._adopting:
            if not isinstance(id, str) or id not in self._broken:
                raise ContainerNotFound(
                    f"no broken one under {self.root}", container=f"{id!s:.200}"
                )
            core = self._cores.get(id)
            if core is not None and core.lock is not None:  # ours, and only its delete has failed
                await delete(core, force=True)
                return
            layout = self._layout.container(id)
            await discard(self._shared, layout, presumed_record(self._shared, self._site(id)))
            self._broken.pop(id, None)

    def _take_note(self, found: Adopted) -> list[Container]:
        """Register what an adoption has found, and forget what it hasn't found any more."""
        for id in found.done:
            core = self._cores.get(id)
            if core is None or core.state is not State.BROKEN:
                self._broken.pop(id, None)
        for broken in found.broken:
            self._set_aside(broken)
        adopted = []
        for core in found.in_order():
            ours = self._cores.get(core.record.id)
            made_here = ours is not None and ours is not core and ours.lock is not None
            if core.lock is None and (made_here or core.record.id in self._making):
                core.dismiss()  # its foreign supervisor is this one, since we have listed it
            else:
                adopted.append(self._register(core))
        return adopted

    def _set_aside(self, broken: Broken) -> None:
        core = self._cores.get(broken.id)
        if core is not None and core.lock is None:
            core.write_off(f"its container is broken: {broken.reason}")
            self._cores.pop(broken.id)
        self._containers.pop(broken.id, None)
        self._broken[broken.id] = broken

    def _forget_deleted(self) -> None:
        """Drop what others have removed: foreign containers, and the files of broken ones."""
        for id, broken in tuple(self._broken.items()):
            if id not in self._cores and not os.path.lexists(broken.path):
                del self._broken[id]
        for id, core in tuple(self._cores.items()):
            if core.lock is None and core.refresh() is State.DELETED:
                core.write_off(DELETED_ELSEWHERE)
                self._gone(id, None)

    def _unsupervised(self) -> list[ContainerLayout]:
        """Return the containers on disk that aren't ours, or being made by us.

        Also those of ours that couldn't be deleted: nobody may have such a one in hand any more.
        """
        ours = {id: core for id, core in self._cores.items() if core.lock is not None}
        others = [one for one in self._layout.containers() if one.id not in {*ours, *self._making}]
        return others + [one.layout for one in ours.values() if one.state is State.BROKEN]

    # ---- closing ------------------------------------------------------------------------

    @undoing
    async def _close(self) -> None:
        """End what is under way, but for deletes; delete those that are on the leash: shielded.

        Whoever goes on afterwards would do it with a container that isn't ours any more, or with a
        later one of its id.
        """
        self._shared.closing.set()
        deadlines = self._shared.deadlines
        with shielded(deadlines.cleanup + deadlines.kill):
            await end_under_way([*self._making.values(), *self._adoptions])
            await end_under_way([one for core in self._cores.values() for one in core.under_way])
            leashed = [box for box in self.values() if box.leashed and not box.foreign]
            async with trio.open_nursery() as nursery:
                for box in leashed:
                    nursery.start_soon(_delete_quietly, box, name=f"{box.id}/init: delete")
            while deleting := self._deleting():
                async with deleting[0]:  # each has a deadline
                    pass

    def _deleting(self) -> list[trio.Lock]:
        """Return what whoever deletes something of ours holds just now."""
        locks = [self._adopting, *(core.deleting for core in self._cores.values())]
        return [lock for lock in locks if lock.locked()]

    def _let_go(self) -> None:
        """Release the locks: after the tasks have ended, which hold those of execs."""
        for core in self._cores.values():
            core.let_go()


@trio.lowlevel.enable_ki_protection
async def _delete_quietly(box: Container) -> None:
    try:
        await box.delete(force=True)
    except (SupervisorError, OSError) as error:
        logger.warning("at the end of its supervisor: %s", error)


def _check_cgroup(parent: str) -> str:
    check_text(parent, "cgroup_parent")
    parts = parent.split("/")[1:] if parent.startswith("/") else []
    if not parts or any(part in ("", ".", "..") for part in parts):
        raise InvalidValue(f"cgroup_parent must be an absolute path below /, not {parent!r}")
    return parent


@opening
@contextlib.asynccontextmanager
async def open_supervisor(
    root: str | os.PathLike[str] | None = None,
    *,
    runtime: str | os.PathLike[str] | Runtime | None = None,
    shim: str | os.PathLike[str] | None = None,
    cgroup_parent: str = DEFAULT_CGROUP_PARENT,
    deadlines: Deadlines | None = None,
    leash: bool | None = None,
    creates_at_once: int | None = None,
    delete_unstarted: bool = False,
    reach: Reach = pass_by,
) -> AsyncIterator[Supervisor]:
    """Open a supervisor: ``async with open_supervisor(root) as sup:``.

    With a root, its containers outlive the block, and the program: the next one that opens the
    root adopts them. Without one it is ephemeral: a temporary root, every container on a
    leash, and nothing outlives the block, however the program ends.

    Args:
        root: the directory that it keeps its containers in; made if it isn't there.
        runtime: a name, a path or a `Runtime`; None for the first of crun, runc and youki
            that can run here.
        shim: the path of another shim program.
        cgroup_parent: the cgroup that the containers' own are made in.
        deadlines: how long operations may take.
        leash: whether its containers die with it; by default only an ephemeral one's do.
        creates_at_once: how many creates may be under way; by default twice the processors.
        delete_unstarted: whether adopted containers that were never started are deleted.
        reach: called at each `Point` that an operation reaches: for tests that kill the program
            there.

    Raises:
        InvalidValue, RuntimeNotFound, ShimNotFound: nothing was touched.
        DiskFull, TooManyFiles, DeadlineExpired: the machine can't have it just now; the containers
            are as they were.
        What the block raises comes out as it is, not in a group.

    Cancellation: as leaving the block. Ephemeral and leashed containers are killed and
    deleted, shielded, each within the deadlines of `Container.delete`.

    Fork: a child that goes on with this Trio run, and leaves the block, undoes nothing; what it
    asks of the supervisor raises SupervisorClosed.

    Crash: shims and containers go on; those on a leash are ended by their shims, and the
    keeper removes what they leave.
    """
    deadlines = check_kind(Deadlines() if deadlines is None else deadlines, Deadlines, "deadlines")
    shim_path = (
        find_binary("supervisor-shim") if shim is None else check_program(check_path(shim, "shim"))
    )
    chosen = Runtime.find(runtime)
    _check_cgroup(cgroup_parent)
    check_flag(delete_unstarted, "delete_unstarted")
    if leash is not None:
        check_flag(leash, "leash")
    if not callable(reach):
        raise InvalidValue(f"reach must be a function, not {type(reach).__name__}")
    if root is None and leash is False:
        raise InvalidValue(
            "without a root all containers are on the leash: nobody could find them again"
        )
    if creates_at_once is not None:
        check_int(creates_at_once, "creates_at_once", least=1, most=MAX_AT_ONCE)
    if chosen.root is not None:
        chosen = attrs.evolve(chosen, root=shared_runtime_root(chosen.root))
    refuse_forked()
    note_process()
    begin_watch()
    await trio.lowlevel.checkpoint()  # cancelled by now, nothing is opened
    async with contextlib.AsyncExitStack() as stack:
        busy = stack.enter_context(contextlib.ExitStack())
        busy.enter_context(waiting())
        patrol = stack.enter_context(contextlib.closing(Patrol(deadlines.shim)))
        programs = stack.enter_context(contextlib.closing(SealedPrograms()))
        null = stack.enter_context(contextlib.closing(NullDevice()))
        mounts = stack.enter_context(contextlib.closing(MountTable()))
        wards = stack.enter_context(contextlib.closing(Wards()))
        stack.callback(reap_let_go)
        reap_let_go()
        hierarchies = Hierarchies.discover()
        ooms = stack.enter_context(contextlib.closing(OomWatch(hierarchies)))
        apart = await stack.enter_async_context(group_apart(hierarchies, cgroup_parent))
        held = None
        if root is None:
            opened_as, held = await stack.enter_async_context(ephemeral_root(apart=apart))
        else:
            opened_as = stack.enter_context(durable_root(root))
            if leash:
                held = await stack.enter_async_context(held_leash(opened_as, apart=apart))
        real_root = opened_as.path
        in_the_end = stack.enter_context(contextlib.ExitStack())
        nursery = await stack.enter_async_context(lasting_nursery())
        nursery.start_soon(patrol.run, name=f"supervisor {real_root}: patrol")
        nursery.start_soon(ooms.run, name=f"supervisor {real_root}: out-of-memory kills")
        shared = Shared(
            shim=shim_path,
            deadlines=deadlines,
            hierarchies=hierarchies,
            apart=apart,
            boot_id=boot_id(),
            patrol=patrol,
            ooms=ooms,
            programs=programs,
            null=null,
            mounts=mounts,
            wards=wards,
            reach=reach,
            tether=None if held is None else find_binary("supervisor-tether"),
        )
        supervisor = Supervisor(
            shared,
            nursery,
            root=real_root,
            runtime=chosen,
            cgroup_parent=cgroup_parent,
            leash=held,
            creates=trio.CapacityLimiter(creates_at_once or 2 * (os.cpu_count() or 1)),
        )
        in_the_end.callback(supervisor._let_go)
        try:
            if root is not None:
                await supervisor.adopt(delete_unstarted=delete_unstarted)
            busy.close()
            yield supervisor
        finally:
            busy.enter_context(waiting())  # until everything else on the stack is closed
            if not forked():
                await supervisor._close()
            shared.closed.set()
