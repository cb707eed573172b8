"""Create a container: from the caller's arguments to an init that waits to be started."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import attrs

from ._checkpoint import CheckpointOptions, with_criu
from ._core import Core
from ._errors import BundleInvalid, InvalidValue, RuntimeFailed
from ._host import Host
from ._lifecycle import Event, State
from ._make import make_init
from ._root import cgroup_for
from .oci import Bundle, Runtime, container_root_ids
from .state import (
    ContainerRecord,
    ProcessRecord,
    RootLayout,
)
from .stdio import Stdio


@attrs.frozen(kw_only=True)
class Draft:
    """A container that isn't on disk yet; everything in it was checked.

    Attributes:
        record: its ``state.json``.
        bundle: the user's.
        init: its init's ``process.json``.
        spec: the spec that will be run.
        stdio: its init's standard streams.
        options: what CRIU has to be told, if it is restored.
    """

    record: ContainerRecord
    bundle: Bundle
    init: ProcessRecord
    spec: Mapping[str, Any]
    stdio: Stdio
    options: CheckpointOptions


def draft(
    host: Host,
    bundle: Bundle,
    *,
    id: str,
    root: str,
    runtime: Runtime,
    runtime_root: str,
    cgroup_parent: str,
    stdio: Stdio,
    leash: bool,
    labels: Mapping[str, str] | None,
    checkpoint: str | os.PathLike[str] | None,
    options: CheckpointOptions | None,
) -> Draft:
    """Check everything, and return what would be made; nothing is touched.

    Raises:
        InvalidValue, BundleInvalid: something can't work.
    """
    cgroup = cgroup_for(cgroup_parent, root, id) if host.hierarchies.usable else None
    spec = bundle.derive(cgroup=cgroup, directory=RootLayout(root).container(id).bundle)
    if "process" not in spec:
        raise BundleInvalid("it has no process to run", path=bundle.path, where="process")
    image = None if checkpoint is None else _checkpoint_path(checkpoint)
    uid, gid = container_root_ids(spec)
    record = ContainerRecord(
        id=id,
        root=root,
        bundle=bundle.path,
        runtime=runtime.path,
        runtime_args=runtime.args,
        runtime_root=runtime.root or runtime_root,
        shim=host.shim,
        no_pivot_root=runtime.no_pivot,
        timeout_ns=int(host.deadlines.create * 1e9),
        created_ns=time.time_ns(),
        cgroup=cgroup,
        boot_id=host.boot_id,
        labels=dict(labels or {}),
        leash=leash,
    )
    stdin, stdout, stderr = stdio.specs
    init = ProcessRecord.from_process(
        spec["process"],
        exec=False,
        root_uid=uid,
        root_gid=gid,
        checkpoint=image,
        no_pivot_root=runtime.no_pivot,
        runtime_args=runtime.args,
        root=record.runtime_root,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
    return Draft(
        record=record,
        bundle=bundle,
        init=init,
        spec=spec,
        stdio=stdio,
        options=options or CheckpointOptions(),
    )


async def launch_init(core: Core, drafted: Draft) -> None:
    """Launch the init of a container whose directory is made.

    Raises: as `Supervisor.create`.

    Cancellation: the shim is ended; the directory is the caller's to remove.
    """
    make_init(core.layout.init, drafted.init, drafted.stdio)
    init = core.add_init(drafted.init)
    command = _command(core, drafted)
    try:
        await core.nursery.start(init.run, command, drafted.stdio.options, drafted.stdio.fds)
    except RuntimeFailed as error:
        if drafted.init.checkpoint is None:
            raise
        raise with_criu(error, core.layout.init.path) from error
    if drafted.init.checkpoint is not None:
        core.mark_started()
    if core.state is State.CREATING:  # it may have ended by now
        core.apply(Event.CREATED if drafted.init.checkpoint is None else Event.RESTORED)


def _command(core: Core, drafted: Draft) -> list[str]:
    init = core.layout.init
    if drafted.init.checkpoint is None:
        return core.caller.create(
            core.record.id,
            bundle=core.layout.bundle,
            pid_file=init.pid,
            log=init.log("create"),
        )
    return core.caller.restore(
        core.record.id,
        bundle=core.layout.bundle,
        pid_file=init.pid,
        image=drafted.init.checkpoint,
        work=init.path,
        options=drafted.options.words(),
        log=init.log("restore"),
    )


def _checkpoint_path(path: str | os.PathLike[str]) -> str:
    image = os.path.abspath(os.fspath(path))
    if not os.path.isdir(image):
        raise InvalidValue(f"there is no checkpoint at {image}")
    return image
