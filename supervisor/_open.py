"""Opening a supervisor: the arguments are checked, and all parts are put together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, TypedDict, Unpack

import attrs
import trio

from ._leash import ephemeral_root, held_leash
from ._supervisor import Supervisor
from .cgroups import Hierarchies, OomWatch, group_apart
from .children import Patrol, Wards, reap_let_go
from .directories import Root, cgroup_stem, durable_root, shared_runtime_root
from .native import check_program, find_binary
from .observers import Observation, Observer, waiting
from .process import Shared
from .rootfs import MountTable
from .runtime import Runtime, SealedPrograms
from .shim import Leash
from .stdio import NullDevice
from .system import boot_id
from .tasks import (
    begin_watch,
    forked,
    lasting_nursery,
    note_process,
    opening,
    refuse_forked,
)
from .values import (
    Deadlines,
    InvalidValue,
    check_flag,
    check_int,
    check_kind,
    check_path,
    check_text,
    require_known,
)

StrPath = str | os.PathLike[str]

DEFAULT_CGROUP_PARENT: Final = "/trio-supervisor"
MAX_AT_ONCE: Final = 1 << 20


class OpenOptions(TypedDict, total=False):
    """The arguments of `open_supervisor`, besides the root.

    Attributes:
        runtime: a name, a path or a `Runtime`; None for the first of crun, runc and youki
            that can run here.
        shim: the path of another shim program.
        cgroup_parent: the cgroup below which the containers' cgroups are made; by default
            ``/trio-supervisor``.
        deadlines: how long operations may take.
        leash: whether containers die with the supervisor; by default only ephemeral ones do.
        creates_at_once: how many creates may run at a time; by default twice the processors.
        delete_unstarted: whether adopted containers that were never started are deleted.
    """

    runtime: StrPath | Runtime | None
    shim: StrPath | None
    cgroup_parent: str
    deadlines: Deadlines | None
    leash: bool | None
    creates_at_once: int | None
    delete_unstarted: bool


@attrs.frozen(kw_only=True)
class _Settings:
    """The checked arguments of `open_supervisor`."""

    root: StrPath | None
    runtime: Runtime
    shim: str
    cgroup_parent: str
    deadlines: Deadlines
    leash: bool
    creates_at_once: int
    delete_unstarted: bool
    observer: Observer | None


def open_supervisor(
    root: StrPath | None = None,
    *,
    _observer: Observer | None = None,
    **options: Unpack[OpenOptions],
) -> AbstractAsyncContextManager[Supervisor]:
    """Open a supervisor: ``async with open_supervisor(root) as sup:``.

    With a root, the containers outlive the block and the program: the next supervisor of the root
    adopts them. Without a root, the supervisor is ephemeral: the root is temporary, every
    container is on a leash, and nothing outlives the block, however the program ends.

    Args:
        root: the directory for the containers; made if missing.
        options: ``runtime``, ``shim``, ``cgroup_parent``, ``deadlines``, ``leash``,
            ``creates_at_once`` and ``delete_unstarted``: see `OpenOptions`.

    Raises:
        InvalidValue, RuntimeNotFound, ShimNotFound: nothing was touched.
        DiskFull, TooManyFiles, DeadlineExpired: the machine lacks the resources just now; the
            containers are unchanged.
        An exception of the block comes out unchanged, not in a group.

    Cancellation: as at the end of the block, ephemeral and leashed containers are killed and
    deleted, shielded, each within the deadlines of `Container.delete`.

    Fork: a child that goes on with this Trio run, and leaves the block, undoes nothing; the
    supervisor's methods raise SupervisorClosed in the child.

    Crash: shims and containers go on. Containers on a leash are killed by their shims, and the
    keeper removes the rest.
    """
    require_known(options, OpenOptions, "open_supervisor")
    return _opened(root, options, _observer)


@opening
@contextlib.asynccontextmanager
async def _opened(
    root: StrPath | None, options: OpenOptions, observer: Observer | None
) -> AsyncIterator[Supervisor]:
    settings = _check(root, options, observer)
    refuse_forked()
    note_process()
    begin_watch()
    await trio.lowlevel.checkpoint()  # a task that is cancelled already opens nothing
    async with contextlib.AsyncExitStack() as stack:
        busy = stack.enter_context(contextlib.ExitStack())
        busy.enter_context(waiting())
        supervisor = await _put_together(settings, stack)
        try:
            if root is not None:
                await supervisor.adopt(delete_unstarted=settings.delete_unstarted)
            busy.close()
            yield supervisor
        finally:
            busy.enter_context(waiting())  # until everything else on the stack is closed
            if not forked():
                await supervisor._close()


def _check(root: StrPath | None, options: OpenOptions, observer: Observer | None) -> _Settings:
    deadlines, shim = options.get("deadlines"), options.get("shim")
    leash, at_once = options.get("leash"), options.get("creates_at_once")
    checked = Deadlines() if deadlines is None else check_kind(deadlines, Deadlines, "deadlines")
    program = (
        find_binary("supervisor-shim") if shim is None else check_program(check_path(shim, "shim"))
    )
    chosen = Runtime.find(options.get("runtime"))
    delete_unstarted = check_flag(options.get("delete_unstarted", False), "delete_unstarted")
    if leash is not None:
        check_flag(leash, "leash")
    if root is None and leash is False:
        raise InvalidValue(
            "leash=False needs a root: without a root no later supervisor finds the containers"
        )
    if at_once is not None:
        check_int(at_once, "creates_at_once", least=1, most=MAX_AT_ONCE)
    if chosen.root is not None:
        chosen = attrs.evolve(chosen, root=shared_runtime_root(chosen.root))
    return _Settings(
        root=root,
        runtime=chosen,
        shim=program,
        cgroup_parent=_check_cgroup(options.get("cgroup_parent", DEFAULT_CGROUP_PARENT)),
        deadlines=checked,
        leash=root is None or bool(leash),
        creates_at_once=at_once or 2 * (os.cpu_count() or 1),
        delete_unstarted=delete_unstarted,
        observer=observer,
    )


async def _put_together(settings: _Settings, stack: contextlib.AsyncExitStack) -> Supervisor:
    """Open the parts of a supervisor; ``stack`` closes the parts in reverse order."""
    patrol = stack.enter_context(contextlib.closing(Patrol(settings.deadlines.shim)))
    programs = stack.enter_context(contextlib.closing(SealedPrograms()))
    null = stack.enter_context(contextlib.closing(NullDevice()))
    mounts = stack.enter_context(contextlib.closing(MountTable()))
    wards = stack.enter_context(contextlib.closing(Wards()))
    stack.callback(reap_let_go)
    reap_let_go()
    hierarchies = Hierarchies.discover()
    ooms = stack.enter_context(contextlib.closing(OomWatch(hierarchies)))
    apart = await stack.enter_async_context(group_apart(hierarchies, settings.cgroup_parent))
    root, leash = await _open_root(settings, stack, apart)
    releasing = stack.enter_context(contextlib.ExitStack())
    nursery = await stack.enter_async_context(lasting_nursery())
    nursery.start_soon(patrol.run, name=f"supervisor {root.path}: patrol")
    nursery.start_soon(ooms.run, name=f"supervisor {root.path}: out-of-memory kills")
    stem = cgroup_stem(settings.cgroup_parent, root.path) if hierarchies.named else None
    shared = Shared(
        root=root.path,
        cgroup_stem=stem,
        shim=settings.shim,
        deadlines=settings.deadlines,
        hierarchies=hierarchies,
        apart=apart,
        boot_id=boot_id(),
        patrol=patrol,
        ooms=ooms,
        programs=programs,
        null=null,
        mounts=mounts,
        wards=wards,
        leash=leash,
    )
    if settings.observer is not None:
        shared.observers.add(Observation, settings.observer)
    creates = trio.CapacityLimiter(settings.creates_at_once)
    supervisor = Supervisor(shared, nursery, runtime=settings.runtime, creates=creates)
    releasing.callback(supervisor._let_go)
    stack.callback(shared.life.end)
    return supervisor


async def _open_root(
    settings: _Settings, stack: contextlib.AsyncExitStack, apart: Sequence[str]
) -> tuple[Root, Leash | None]:
    """Open the root, and hold a leash if the containers die with us."""
    if settings.root is None:
        return await stack.enter_async_context(ephemeral_root(apart=apart))
    root = stack.enter_context(durable_root(settings.root))
    if not settings.leash:
        return root, None
    return root, await stack.enter_async_context(held_leash(root, apart=apart))


def _check_cgroup(parent: str) -> str:
    check_text(parent, "cgroup_parent")
    parts = parent.split("/")[1:] if parent.startswith("/") else []
    if not parts or any(part in ("", ".", "..") for part in parts):
        raise InvalidValue(f"cgroup_parent must be an absolute path below /, not {parent!r}")
    return parent
