"""The plan of a container: all facts for the launch of the init, as they are stored on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from ..bundle import GATE_DESTINATION, Content, init_process, read_config, with_gate
from ..process import Shared
from ..runtime import Runtime
from ..spec import (
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
    ContainerLayout,
    ContainerRecord,
    ProcessRecord,
    ShimLost,
    load,
)
from ..stdio import Stdio, recorded
from ..userns import UserNamespace, container_root_ids
from ..values import BundleInvalid, InvalidValue, StateCorrupt, check_path
from ._proof import with_proof
from ._request import CreateRequest

_LOWER: Final = "--lower"


@attrs.frozen(kw_only=True)
class Plan:
    """The checked plan of a container. The files on disk hold exactly these values.

    Attributes:
        layout: the container's directory.
        record: ``state.json``.
        init: the init's ``process.json``; with a gate, the bundle's program.
        spec: ``config.json``, which is run.
        stdio: the init's standard streams, not opened.
    """

    layout: ContainerLayout
    record: ContainerRecord
    init: ProcessRecord
    spec: Mapping[str, Any]
    stdio: Stdio

    @classmethod
    def load(cls, layout: ContainerLayout) -> Plan:
        """Read the plan of a container that this or another supervisor has made.

        Only tests call this: they prove that another launch of the init needs nothing but the disk.
        Adoption and `look` need less, and judge files by their own rules: a container is adopted
        without a readable ``config.json``.

        Raises:
            FileNotFoundError: a file is missing.
            StateCorrupt, BundleInvalid: a file can't be understood, or was written by an earlier
                version, which didn't record the path under a layer.
            TooManyFiles, OSError: a file can't be read.
        """
        record = load(ContainerRecord, layout.state)
        init = load(ProcessRecord, layout.init.record)
        plan = cls(
            layout=layout,
            record=record,
            init=init,
            spec=read_config(layout.bundle),
            stdio=recorded(layout.init, init),
        )
        if wants_layer(plan.spec) and not plan.record.shim_options:
            raise StateCorrupt(layout.state, "the path under the layer isn't on record")
        return plan

    @property
    def gated(self) -> bool:
        """Whether the container has a gate in place of the program, as in a pool."""
        return list(self.spec["process"]["args"]) == [GATE_DESTINATION]

    @property
    def unrepeatable(self) -> tuple[str, ...]:
        """The parts that only the program that made the container has: open files, a gate's pipe.

        Possible are ``"stdin"``, ``"stdout"``, ``"stderr"`` and ``"gate"``. All other parts can be
        made again.
        """
        return (*self.stdio.descriptors, *(["gate"] if self.gated else []))

    @property
    def rootfs(self) -> str:
        """The path of the root filesystem on the host."""
        words = self.record.shim_options
        if _LOWER in words:
            return words[words.index(_LOWER) + 1]
        path: str = self.spec["root"]["path"]
        return path

    @property
    def shim_options(self) -> list[str]:
        """The shim's options, except the options for the streams."""
        words = list(self.record.shim_options)
        if self.init.init_tells:
            words += ["--init-status", str(status_fd(gated=self.gated))]
        return words

    @property
    def preserved_fds(self) -> int:
        """How many descriptors the runtime passes to the init."""
        return self.gated + self.init.init_tells


def plan_container(
    shared: Shared,
    runtime: Runtime,
    layout: ContainerLayout,
    content: Content,
    request: CreateRequest,
    *,
    user: Mapping[str, Any] | None,
    ids: UserNamespace | None,
) -> Plan:
    """Check all arguments, and return the plan; nothing is touched.

    Args:
        shared: what the supervisor's parts share.
        runtime: the runtime for the container.
        layout: the container's directory.
        content: the user's bundle.
        request: the caller's arguments.
        user: the user of the process object; None for the bundle's.
        ids: the container's user namespace, in place of the bundle's.

    Raises:
        InvalidValue, BundleInvalid: an argument can't work.
    """
    ours = _of_supervisor(shared, runtime, layout.id)
    stdio = request.stdio(layout.init)
    streams, options = stdio.on_record, content.shim_options(layout.bundle, ids)
    cgroup, directory = ours["cgroup"], layout.bundle
    spec = content.derive(cgroup=cgroup, directory=directory, ids=ids, mounts=shared.mounts)
    spec, tells = _requested(spec, content, request, stdio, user, runtime.path)
    stop = request.stop.else_of(stop_of(content.spec))
    uid, gid = container_root_ids(content.spec) if ids is None else ids.root
    checkpoint = _checkpoint_path(request, content)
    record = ContainerRecord(
        bundle=content.path,
        created_ns=time.time_ns(),
        shim_options=options,
        **_of_request(request, stdio, stop),
        **ours,
    )
    init = ProcessRecord.from_process(
        spec["process"],
        exec=False,
        root_uid=uid,
        root_gid=gid,
        checkpoint=checkpoint,
        no_pivot_root=record.no_pivot_root,
        init_tells=tells,
        runtime_args=record.runtime_args,
        root=record.runtime_root,
        **streams,
    )
    spec = with_proof(_to_launch(spec, request, tells=tells), shared, record)
    return Plan(layout=layout, record=record, init=init, spec=spec, stdio=stdio)


def shim_lost(wanted: str, stdio: Stdio) -> ShimLost:
    """Return the policy for a lost shim.

    Raises:
        InvalidValue: there is no such policy, or these streams can't outlive the shim.
    """
    try:
        policy = ShimLost(wanted)
    except (ValueError, TypeError):
        raise InvalidValue(f"on_shim_lost must be 'kill' or 'keep', not {wanted!r}") from None
    if policy is ShimLost.KEEP and (stdio.terminal is not None or stdio.log is not None):
        raise InvalidValue(
            "on_shim_lost='keep' is impossible with a terminal or a log: they are in the shim, and "
            "end with it"
        )
    return policy


def presumed_record(shared: Shared, runtime: Runtime, id: str) -> ContainerRecord:
    """Return a presumed record for a container whose own record can't be read."""
    return ContainerRecord(bundle=shared.root, created_ns=0, **_of_supervisor(shared, runtime, id))


def _of_request(request: CreateRequest, stdio: Stdio, stop: StopWish) -> dict[str, Any]:
    """Return the values of a record that are the caller's."""
    criu = request.checkpoint_options
    return {
        "labels": {} if request.labels is None else request.labels,
        "on_shim_lost": shim_lost(request.on_shim_lost, stdio),
        "stop_signal": stop.signal,
        "stop_grace_ns": None if stop.grace is None else int(min(stop.grace * 1e9, MAX_NS)),
        "restore_options": () if request.checkpoint is None or criu is None else criu._words(),
    }


def _of_supervisor(shared: Shared, runtime: Runtime, id: str) -> dict[str, Any]:
    """Return the values of a record that the supervisor gives each container of this id."""
    return {
        "id": id,
        "root": shared.root,
        "runtime": runtime.path,
        "runtime_args": runtime.args,
        "runtime_root": runtime.root or shared.runtime_root,
        "no_pivot_root": runtime.no_pivot,
        "shim": shared.shim,
        "boot_id": shared.boot_id,
        "leash": shared.leash is not None,
        "timeout_ns": _nanoseconds(shared.deadlines.create),
        "cgroup": None if shared.cgroup_stem is None else f"{shared.cgroup_stem}-{id}",
    }


def _nanoseconds(seconds: float) -> int:
    """Return a deadline in a record's units; no deadline becomes the longest possible one."""
    return max(1, int(min(seconds * 1e9, MAX_NS)))


def _requested(
    spec: dict[str, Any],
    content: Content,
    request: CreateRequest,
    stdio: Stdio,
    user: Mapping[str, Any] | None,
    runtime: str,
) -> tuple[dict[str, Any], bool]:
    """Return the derived spec with the caller's arguments, and whether an init of ours can tell."""
    if "process" not in spec:
        raise BundleInvalid("no process to run", path=content.path, where="process")
    size = stdio.terminal
    spec["process"] = init_process(
        spec["process"],
        args=request.args,
        env=request.env,
        cwd=request.cwd,
        user=user,
        terminal=None if size is None else (size.columns, size.rows),
    )
    spec = with_privileges(spec, request.privileges)
    spec["process"] = attainable(spec["process"])
    try:
        check_attainable(spec["process"])
    except InvalidValue as error:  # the bundle's limits: the caller's were checked before
        raise BundleInvalid(str(error), path=content.path, where="process.rlimits") from error
    spec = for_runtime(spec, runtime)
    gated = request.gate is not None
    return spec, request.checkpoint is None and can_tell(spec, runtime, gated=gated)


def _to_launch(spec: dict[str, Any], request: CreateRequest, *, tells: bool) -> dict[str, Any]:
    """Return the spec that is run, with the gate's or the init's arguments before the program."""
    if request.gate is not None:
        return with_gate(spec, request.gate)  # an init comes after the gate
    if not tells:
        return spec
    process = spec["process"]
    return {**spec, "process": {**process, "args": telling(process["args"], gated=False)}}


def _checkpoint_path(request: CreateRequest, content: Content) -> str | None:
    if request.checkpoint is None:
        return None
    image = os.path.abspath(check_path(request.checkpoint, "checkpoint"))
    if content.layered:
        raise InvalidValue("a checkpoint can't be restored with a layer, whose files it lacks")
    if content.wish is not None:
        raise InvalidValue("a checkpoint can't be restored with other ids: not with userns")
    if not os.path.isdir(image):
        raise InvalidValue(f"there is no checkpoint at {image}")
    return os.path.realpath(image)
