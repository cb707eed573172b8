"""Create a container: from the caller's arguments to an init that waits to be started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from ..bundle import Bundle, Gate, init_process, with_gate
from ..directories import cgroup_for
from ..process import Shared
from ..rootfs import Account, find_account
from ..runtime import Call, Runtime, fresh_log
from ..spec import (
    Privileges,
    StopWish,
    attainable,
    can_tell,
    check_attainable,
    for_runtime,
    status_fd,
    stop_of,
    telling,
    wants_layer,
    with_privileges,
)
from ..state import (
    MAX_NS,
    Block,
    Claim,
    ContainerRecord,
    ProcessRecord,
    Ranges,
    RootLayout,
    note,
    take,
)
from ..stdio import Stdio, console
from ..tasks import in_thread
from ..userns import UserNamespace, check_user, container_root_ids, namespace_of, of_block, wish_of
from ..values import (
    BundleInvalid,
    Event,
    IdsExhausted,
    InvalidValue,
    Point,
    RuntimeFailed,
    State,
    check_path,
)
from ._checkpoint import CheckpointOptions, with_criu
from ._core import Core
from ._directories import make_init, shim_lost
from ._proof import with_proof
from ._unrun import raise_planned


@attrs.frozen(kw_only=True)
class Site:
    """Where a container is to be made, and with what.

    Attributes:
        id: its id.
        root: the supervisor's root.
        runtime: makes it.
        runtime_root: the runtime's ``--root``, unless the runtime has one of its own.
        cgroup_parent: the cgroup that its own is made in.
        leash: whether it dies with its supervisor.
    """

    id: str
    root: str
    runtime: Runtime
    runtime_root: str
    cgroup_parent: str
    leash: bool


@attrs.frozen(kw_only=True)
class Order:
    """What a caller of `Supervisor.create` wants to have made of a bundle, in its words."""

    stdio: Stdio
    args: Sequence[str] | None
    env: Mapping[str, str] | None
    cwd: str | None
    labels: Mapping[str, str] | None
    on_shim_lost: str
    checkpoint: str | os.PathLike[str] | None
    options: CheckpointOptions | None
    gate: Gate | None
    privileges: Privileges | None
    stop: StopWish
    user: Mapping[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Draft:
    """A container that isn't on disk yet; everything in it was checked.

    Attributes:
        record: its ``state.json``.
        bundle: the user's.
        init: its init's ``process.json``: of a gated one, what the bundle says.
        spec: the spec that will be run.
        stdio: its init's standard streams.
        options: what CRIU has to be told, if it is restored.
    """

    record: ContainerRecord
    bundle: Bundle
    init: ProcessRecord
    spec: Mapping[str, Any]
    claim: Claim | None
    shim_options: Sequence[str]
    stdio: Stdio
    options: CheckpointOptions

    def having(self, stdio: Stdio) -> Draft:
        """Return the same with its streams opened."""
        return attrs.evolve(self, stdio=stdio)

    def build_rootfs(self, directory: str) -> None:
        """Make what the spec needs in its bundle's directory; see `Bundle.build_rootfs`."""
        self.bundle.build_rootfs(directory, _ids(self.claim))


@contextlib.contextmanager
def claimed_ids(bundle: Bundle, directory: str) -> Iterator[Claim | None]:
    """Claim ids that no other container has, if the bundle wishes for them; note those it gives.

    At the end of the block they are free again, unless the container is there.

    Args:
        bundle: the bundle.
        directory: the path that the container's directory will have.

    Raises:
        InvalidValue: there are none, or that they are taken can't be noted; or those that were
            given are another container's own.
        IdsExhausted: all of them are taken.
    """
    blocks, given = bundle.id_blocks, bundle.given_ids
    claim = None
    if blocks is not None:
        claim = _take(blocks, directory)
    elif any(given):
        claim = _note(*given, directory)
    with claim or contextlib.nullcontext():
        yield claim


def _take(blocks: Sequence[Block], directory: str) -> Claim:
    claim = take(blocks, directory)
    if claim is None:
        raise IdsExhausted(
            f'userns="auto": all {len(blocks)} ranges of ids belong to containers: delete some, or '
            "give the user containers more in /etc/subuid and /etc/subgid",
            container=os.path.basename(directory),
        )
    return claim


def _note(uids: Ranges, gids: Ranges, directory: str) -> Claim | None:
    """Note ids that a caller gave. Where nothing can be noted, nobody is promised any either."""
    try:
        claim = note(uids, gids, directory)
    except InvalidValue:
        return None
    if isinstance(claim, str):
        raise InvalidValue(
            f"userns: some of its ids are those of the container {claim}, which has them for "
            'itself (userns="auto"): give others',
            container=os.path.basename(directory),
        )
    return claim


async def user_of(bundle: Bundle, account: Account) -> dict[str, Any] | None:
    """Return the user that an account stands for in a bundle; None if nothing is said of it.

    Raises:
        InvalidValue: a name isn't listed there, or an id isn't there in its user namespace.
    """
    if not account.says_anything:
        return None
    before = (bundle.spec.get("process") or {}).get("user")
    find = partial(find_account, account, bundle.lists, before=before)
    user = await in_thread(find) if account.needs_lists else find()
    if wish_of(bundle.spec) is not None and bundle.spec["linux"].get("uidMappings"):
        check_user(namespace_of(bundle.spec), user)
    return user


def _ids(claim: Claim | None) -> UserNamespace | None:
    return None if claim is None or claim.block is None else of_block(claim.block)


def draft(
    shared: Shared, site: Site, bundle: Bundle, order: Order, claim: Claim | None = None
) -> Draft:
    """Check everything, and return what would be made; nothing is touched.

    Raises:
        InvalidValue, BundleInvalid: something can't work.
    """
    named = shared.hierarchies.named
    cgroup = cgroup_for(site.cgroup_parent, site.root, site.id) if named else None
    directory = RootLayout(site.root).container(site.id).bundle
    ids = _ids(claim)
    derived = bundle.derive(cgroup=cgroup, directory=directory, ids=ids, mounts=shared.mounts)
    spec = _ordered(derived, bundle, order)
    spec = for_runtime(spec, site.runtime.path)
    process, tells = spec["process"], _tells(spec, site, order)
    record = _container_record(shared, site, bundle, order, cgroup=cgroup)
    spec = with_proof(_to_launch(spec, order, tells=tells), record)
    image = None if order.checkpoint is None else _checkpoint_path(order.checkpoint, bundle)
    stdio = order.stdio
    if order.gate is not None:
        stdio = attrs.evolve(stdio, given=order.gate.report_fd)
    return Draft(
        record=record,
        bundle=bundle,
        init=_process_record(
            record,
            process,
            order.stdio,
            tells=tells,
            image=image,
            root_ids=container_root_ids(bundle.spec) if ids is None else ids.root,
        ),
        spec=spec,
        claim=claim,
        shim_options=[*bundle.shim_options(directory, ids), *_init_options(order, tells=tells)],
        stdio=stdio,
        options=order.options or CheckpointOptions(),
    )


def _ordered(spec: dict[str, Any], bundle: Bundle, order: Order) -> dict[str, Any]:
    """Return a spec that was derived for the container, with what was ordered in it."""
    if "process" not in spec:
        raise BundleInvalid("it has no process to run", path=bundle.path, where="process")
    size = order.stdio.terminal
    spec["process"] = init_process(
        spec["process"],
        args=order.args,
        env=order.env,
        cwd=order.cwd,
        user=order.user,
        terminal=None if size is None else (size.columns, size.rows),
    )
    if order.privileges is not None:
        spec = with_privileges(spec, order.privileges)
    spec["process"] = attainable(spec["process"])
    try:
        check_attainable(spec["process"])
    except InvalidValue as error:  # what the caller has said was looked at before
        raise BundleInvalid(str(error), path=bundle.path, where="process.rlimits") from error
    return spec


def _tells(spec: Mapping[str, Any], site: Site, order: Order) -> bool:
    """Whether its init will tell the shim how the program ended; one that is restored can't."""
    gated = order.gate is not None
    return order.checkpoint is None and can_tell(spec, site.runtime.path, gated=gated)


def _init_options(order: Order, *, tells: bool) -> list[str]:
    """Return the shim's options by which it hears that."""
    return ["--init-status", str(status_fd(gated=order.gate is not None))] if tells else []


def _to_launch(spec: dict[str, Any], order: Order, *, tells: bool) -> dict[str, Any]:
    """Return the spec that is run: what stands before its program knows what we want of it."""
    if order.gate is not None:
        return with_gate(spec, order.gate)  # which an init comes after
    if not tells:
        return spec
    process = spec["process"]
    return {**spec, "process": {**process, "args": telling(process["args"], gated=False)}}


def presumed_record(shared: Shared, site: Site) -> ContainerRecord:
    """Return what can be presumed of a container whose own record can't be read."""
    named = shared.hierarchies.named
    return ContainerRecord(
        id=site.id,
        root=site.root,
        bundle=site.root,
        runtime=site.runtime.path,
        runtime_args=site.runtime.args,
        runtime_root=site.runtime.root or site.runtime_root,
        shim=shared.shim,
        timeout_ns=1,
        created_ns=0,
        cgroup=cgroup_for(site.cgroup_parent, site.root, site.id) if named else None,
        boot_id=shared.boot_id,
    )


def _container_record(
    shared: Shared, site: Site, bundle: Bundle, order: Order, *, cgroup: str | None
) -> ContainerRecord:
    stop = order.stop.else_of(stop_of(bundle.spec))
    return ContainerRecord(
        id=site.id,
        root=site.root,
        bundle=bundle.path,
        runtime=site.runtime.path,
        runtime_args=site.runtime.args,
        runtime_root=site.runtime.root or site.runtime_root,
        shim=shared.shim,
        no_pivot_root=site.runtime.no_pivot,
        timeout_ns=_nanoseconds(shared.deadlines.create),
        created_ns=time.time_ns(),
        cgroup=cgroup,
        boot_id=shared.boot_id,
        labels={} if order.labels is None else order.labels,
        leash=site.leash,
        on_shim_lost=shim_lost(order.on_shim_lost, order.stdio),
        stop_signal=stop.signal,
        stop_grace_ns=None if stop.grace is None else int(min(stop.grace * 1e9, MAX_NS)),
    )


def _nanoseconds(seconds: float) -> int:
    """Return a deadline as a record holds it: no deadline at all is the longest one there."""
    return max(1, int(min(seconds * 1e9, MAX_NS)))


def _process_record(
    record: ContainerRecord,
    process: Mapping[str, Any],
    stdio: Stdio,
    *,
    tells: bool,
    image: str | None,
    root_ids: tuple[int, int],
) -> ProcessRecord:
    stdin, stdout, stderr = stdio.specs
    return ProcessRecord.from_process(
        process,
        exec=False,
        root_uid=root_ids[0],
        root_gid=root_ids[1],
        checkpoint=image,
        no_pivot_root=record.no_pivot_root,
        init_tells=tells,
        runtime_args=record.runtime_args,
        root=record.runtime_root,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


async def launch_init(core: Core, drafted: Draft) -> None:
    """Launch the init of a container whose directory is made.

    Raises: as `Supervisor.create`.

    Cancellation: the shim is ended; the directory is the caller's to remove.
    """
    make_init(core.layout.init, drafted.init, drafted.stdio)
    core.shared.reach(Point.PROCESS_MADE)
    init = core.add_init(drafted.init)
    core.show()
    try:
        with console(core.layout.init, drafted.stdio) as listening:
            call = _call(core, drafted, None if listening is None else listening.path)
            options = drafted.shim_options
            await core.nursery.start(
                init.run, call, drafted.stdio, listening, options, name=init.task_name
            )
    except RuntimeFailed as error:
        if drafted.init.checkpoint is None:
            await raise_planned(error, core, drafted.bundle.tree(core.layout.bundle), drafted.spec)
            raise
        raise with_criu(error, core.layout.init.path) from error
    if drafted.init.checkpoint is not None:
        core.mark_started()
    if core.state is State.CREATING:  # it may have ended by now
        core.apply(Event.CREATED if drafted.init.checkpoint is None else Event.RESTORED)


def _call(core: Core, drafted: Draft, console_socket: str | None) -> Call:
    init = core.layout.init
    log = init.log("create" if drafted.init.checkpoint is None else "restore")
    fresh_log(log)
    if drafted.init.checkpoint is None:
        return core.runtime.create(
            bundle=core.layout.bundle,
            pid_file=init.pid,
            console_socket=console_socket,
            preserve_fds=(drafted.stdio.given is not None) + drafted.init.init_tells,
            log=log,
        )
    return core.runtime.restore(
        bundle=core.layout.bundle,
        pid_file=init.pid,
        image=drafted.init.checkpoint,
        work=init.path,
        options=drafted.options.words(),
        console_socket=console_socket,
        log=log,
    )


def _checkpoint_path(path: str | os.PathLike[str], bundle: Bundle) -> str:
    image = os.path.abspath(check_path(path, "checkpoint"))
    if wants_layer(bundle.spec):
        raise InvalidValue("a checkpoint doesn't hold the layer that its files were in")
    if wish_of(bundle.spec) is not None:
        raise InvalidValue("a checkpoint can't be restored with other ids: not with userns")
    if not os.path.isdir(image):
        raise InvalidValue(f"checkpoint: there is none at {image}")
    return os.path.realpath(image)
