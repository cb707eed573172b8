"""Create a container: from the caller's request to an init that waits to be started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs
import trio

from ..bundle import Bundle, Content, content_of
from ..observers import Made, Observation, waiting, witness
from ..process import Shared, run_process
from ..runtime import Call, Runtime, fresh_log
from ..state import Block, Claim, ContainerLayout, Ranges, note, take
from ..stdio import Stdio, console, log_tail, opened
from ..system import Lock
from ..userns import of_block
from ..values import (
    Event,
    IdsExhausted,
    InvalidValue,
    RuntimeFailed,
    RuntimeNotFound,
    ShimNotFound,
    State,
)
from ._checkpoint import with_criu
from ._core import Core
from ._delete import undo
from ._directories import make_container
from ._plan import Plan, plan_container
from ._proof import cleanup_list, require_empty, require_free
from ._request import CreateRequest
from ._unrun import raise_planned


async def create(
    shared: Shared,
    nursery: trio.Nursery,
    layout: ContainerLayout,
    bundle: Bundle,
    request: CreateRequest,
    *,
    runtime: Runtime,
    turn: trio.CapacityLimiter,
) -> Core:
    """Make a container; see `Supervisor.create`.

    Args:
        shared: what the supervisor's parts share.
        nursery: owns the tasks of the container's processes.
        layout: the container's directory, which isn't there yet.
        bundle: the user's bundle.
        request: the caller's arguments.
        runtime: the runtime for the container.
        turn: held while the container is made.

    Raises, Cancellation: as `Supervisor.create`.
    """
    content = content_of(bundle)
    user = await request.user_in(content)
    with claimed_ids(content, layout) as claim:
        ids = None if claim is None or claim.block is None else of_block(claim.block)
        plan = plan_container(shared, runtime, layout, content, request, user=user, ids=ids)
        stdio = plan.stdio
        if request.gate is not None:
            stdio = attrs.evolve(stdio, given=request.gate.report_fd)
        make = partial(
            make_container,
            plan,
            build_rootfs=partial(content.build_rootfs, ids=ids),
            cleanup=cleanup_list(shared, plan.record, bundle) if plan.record.leash else None,
            claim=claim,
            observers=shared.observers,
        )
        with opened(stdio, shared.null) as ready, waiting():
            async with turn:
                return await _make(shared, nursery, plan, partial(make, ready), ready)


async def _make(
    shared: Shared,
    nursery: trio.Nursery,
    plan: Plan,
    make: Callable[[], Lock],
    stdio: Stdio,
) -> Core:
    """Make the container's directory with ``make``, and launch the init."""
    record = plan.record
    require_free(record)
    await require_empty(shared, record)
    core = Core(shared=shared, nursery=nursery, layout=plan.layout, record=record, lock=make())
    core.note("create")
    try:
        await _launch_init(core, plan, stdio)
    except BaseException as error:
        ran = not isinstance(error, RuntimeNotFound | ShimNotFound)
        await undo(core, ran=ran)
        raise
    return core


@contextlib.contextmanager
def claimed_ids(content: Content, layout: ContainerLayout) -> Iterator[Claim | None]:
    """Claim ids that no other container has, if the bundle asks for such; note ids it gives.

    At the end of the block the ids are free again, unless the container exists.

    Args:
        content: the bundle.
        layout: the container's directory, which isn't there yet.

    Raises:
        InvalidValue: there are no ids, or the claim can't be noted; or the bundle gives ids that
            another container has claimed.
        IdsExhausted: all ids are claimed.
    """
    blocks, given = content.id_blocks, content.given_ids
    claim = None
    if blocks is not None:
        claim = _take(blocks, layout)
    elif any(given):
        claim = _note(*given, layout)
    with claim or contextlib.nullcontext():
        yield claim


def _take(blocks: Sequence[Block], layout: ContainerLayout) -> Claim:
    claim = take(blocks, layout.path)
    if claim is None:
        raise IdsExhausted(
            f'userns="auto": all {len(blocks)} ranges of ids belong to containers: delete some, or '
            "give the user containers more in /etc/subuid and /etc/subgid",
            container=layout.id,
        )
    return claim


def _note(uids: Ranges, gids: Ranges, layout: ContainerLayout) -> Claim | None:
    """Note ids that a caller gave. Where nothing can be noted, no container can claim ids."""
    try:
        claim = note(uids, gids, layout.path)
    except InvalidValue:
        return None
    if isinstance(claim, str):
        raise InvalidValue(
            f"userns: some of the ids belong to the container {claim} alone "
            '(userns="auto"): give others',
            container=layout.id,
        )
    return claim


async def _launch_init(core: Core, plan: Plan, stdio: Stdio) -> None:
    """Launch the init of a container whose directory is made.

    Raises: as `Supervisor.create`.

    Cancellation: the shim is ended; the caller must remove the directory.
    """
    init = core.add_init(plan.init)
    init.gate.reports = plan.gated
    show(core)
    restored, options = plan.init.checkpoint is not None, plan.shim_options
    try:
        with console(core.layout.init, stdio) as listening:
            call = _call(core, plan, None if listening is None else listening.path)
            await core.nursery.start(
                run_process, init, call, stdio, listening, options, name=init.task_name
            )
    except RuntimeFailed as error:
        if not restored:
            await raise_planned(error, core, plan.rootfs, plan.spec)
            raise
        raise with_criu(error, core.layout.init.path) from error
    if restored:
        core.mark_started()
    if core.state is State.CREATING:  # init may have ended by now
        core.apply(Event.RESTORED if restored else Event.CREATED)


def _call(core: Core, plan: Plan, console_socket: str | None) -> Call:
    init, image = core.layout.init, plan.init.checkpoint
    preserved, runtime = plan.preserved_fds, core.runtime
    log = init.log("create" if image is None else "restore")
    fresh_log(log)
    if image is None:
        return runtime.create(
            bundle=core.layout.bundle,
            pid_file=init.pid,
            console_socket=console_socket,
            preserve_fds=preserved,
            log=log,
        )
    return runtime.restore(
        bundle=core.layout.bundle,
        pid_file=init.pid,
        image=image,
        work=init.path,
        options=plan.record.restore_options,
        console_socket=console_socket,
        log=log,
    )


# ---- what observers see ---------------------------------------------------------------------


def show(core: Core) -> None:
    """Notify the observers that a container was made, or taken from a pool."""
    looking = witness.get()
    if looking is not None:
        core.observers.add(Observation, looking.observe)
    status = core.init.status  # if the program has just ended, the history has that from here on
    core.observers.notify(
        Made(
            container=core.record.id,
            args=core.init.args,
            history=core.history,
            status=status,
            spec=partial(_read, core.layout.config),
            log=partial(log_tail, core.layout.init.output_log),
        )
    )


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
