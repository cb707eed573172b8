"""Launch a process: its shim, the shim's report, and what is said when there is none."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from typing import Final

import attrs

from ..runtime import Call, failure, reason_in, run
from ..shim import Leash, Made, Refused, Shim, apart, launch, read_report
from ..state import ProcessLayout
from ..system import write_whole
from ..tasks import within
from ..values import (
    CreateTimeout,
    Point,
    RuntimeFailed,
    RuntimeNotFound,
    ShimError,
    ShimExited,
    SupervisorError,
    scarcity,
)
from ._shared import Shared, shielded

_AGAIN_SECONDS: Final = 5.0
_AGAIN: Final = ".again"
_NO_PROGRAM: Final = "/.trio-supervisor/no-program"

_NO_LAYER: Final = {
    errno.ENODEV: "this kernel has no overlay file system (modprobe overlay)",
    errno.EPERM: "only root may mount, and whoever may make user namespaces",
    errno.EINVAL: "not every file system can be under an overlay, nor an overlay of an overlay",
}
"""What the shim's errors at a writable layer mean, where the number alone doesn't say it."""

_NO_MAPPING: Final = {
    errno.ENOSYS: "ID-mapped mounts need Linux 5.12",
    errno.EINVAL: "this file system can't be shown with other ids",
    errno.EPERM: "user namespaces, or other ids for this file system, aren't allowed",
    errno.ENOSPC: "there are too many user namespaces (/proc/sys/user/max_user_namespaces)",
}
"""What the shim's errors at an ID-mapped root filesystem mean."""

_INSTEAD: Final = (
    'Use userns="none"; or chown the tree to ids of the host, and give these as explicit mappings'
)


async def launch_process(
    shared: Shared,
    layout: ProcessLayout,
    call: Call,
    *,
    options: Sequence[str],
    fds: Sequence[int],
    leash: Leash | None,
    cgroup: str | None,
) -> tuple[Shim, Made]:
    """Launch a shim, and return it with the process that the runtime made under it.

    Args:
        shared: what its supervisor's parts share.
        layout: the process directory.
        call: the runtime's call.
        options: the shim's, besides those that every shim has.
        fds: descriptors that it inherits.
        leash: what it watches, or None.
        cgroup: the container's, or None.

    Raises:
        CreateTimeout: there was no report within ``deadlines.create``.
        RuntimeFailed, RuntimeNotFound, ShimExited, ShimError, ShimNotFound, DiskFull,
            TooManyFiles, TooManyProcesses: what the report says, or that there was none.

    Cancellation: as after an error, the shim has ended what it had made, and itself.
    """
    shim, report_fd = launch(
        shared.shim,
        call.words,
        layout=layout,
        options=[*options, *apart(shared.apart, alone=cgroup is not None)],
        fds=fds,
        leash=leash,
        program=call.head.program(),
    )
    shared.wards.launched(shim.pid)
    shim.wards = shared.wards
    shared.reach(Point.LAUNCHED)
    try:
        return shim, await _made(shared, layout, call, report_fd)
    except BaseException:
        with shielded(shared.deadlines.cleanup):
            await shim.give_up(shared.deadlines.shim)
        shim.close()
        raise


async def _made(shared: Shared, layout: ProcessLayout, call: Call, report_fd: int) -> Made:
    """Return the process that a shim reports; raise what the report says otherwise."""
    seconds = shared.deadlines.create
    report = None
    with within(seconds) as scope:
        report = await read_report(report_fd)
    if isinstance(report, Made):
        shared.reach(Point.REPORTED)
        return report
    if scope.cancelled_caught:
        raise CreateTimeout(
            f"{call.head.name} made no process within {seconds:g} seconds",
            seconds=seconds,
            container=call.head.container,
        )
    aloud = await _said_aloud(shared, layout, call) if _is_mute(report, call) else ""
    raise _refusal(report, layout, call, aloud=aloud)


def _is_mute(report: Refused | None, call: Call) -> bool:
    """Whether a runtime has failed before it began with its log."""
    return (
        report is not None
        and report.phase == "runtime"
        and report.code != 0
        and not _has_begun(call.log)
    )


async def _said_aloud(shared: Shared, layout: ProcessLayout, call: Call) -> str:
    """Return what a runtime prints that has failed before it had a log: it is called once more.

    Its standard error is the container's own, who gets it as it is: a pipe of ours would have to be
    read for as long as anybody in there has it. So what it said the first time went where that
    goes, by default nowhere. A wrong option, a missing library, a program in a runtime's place
    that refuses: each says the same again. If it comes further this time, it wasn't that. What a
    create makes then is removed with what has failed, and is never started.

    Cancellation: as `runtime.run`.
    """
    again = _repeated(call, layout)
    if again is None:
        return ""
    try:
        await run(again, seconds=min(shared.deadlines.call, _AGAIN_SECONDS), aloud=True)
    except RuntimeFailed as error:
        further = _NO_PROGRAM in error.reason or _has_begun(again.log)
        return "" if further else error.reason
    except (SupervisorError, OSError):
        pass
    return ""


def _repeated(call: Call, layout: ProcessLayout) -> Call | None:
    """Return a create or an exec to be called a second time; None if it can't be.

    It has a log of its own. A create that has made something would find that. An exec's program is
    one that isn't there.
    """
    log = None if call.log is None else f"{call.log}{_AGAIN}"
    if call.verb == "create":
        return None if os.path.lexists(call.head.place) else attrs.evolve(call, log=log)
    if call.process is None:
        return None
    process = f"{call.process}{_AGAIN}"
    try:
        with open(layout.record, "rb") as file:
            content = {**json.load(file), "args": [_NO_PROGRAM]}
        write_whole(process, json.dumps(content).encode())
    except (OSError, ValueError, SupervisorError):
        return None
    return attrs.evolve(call, log=log, process=process)


def _has_begun(log: str | None) -> bool:
    """Whether there is something in a log."""
    try:
        return log is None or os.path.getsize(log) > 0
    except OSError:
        return False


def _refusal(
    report: Refused | None,
    layout: ProcessLayout,
    call: Call,
    *,
    aloud: str,
) -> SupervisorError | OSError:
    """Return the error for a report of no process, or for none at all."""
    container = call.head.container
    if report is None:
        said = reason_in(layout.shim_log)
        detail = f": {said}" if said else ", and it said nothing"
        return ShimExited(f"its shim ended before its report{detail}", container=container)
    if report.phase == "runtime":
        reason = reason_in(call.log) or aloud
        status = -report.signal if report.signal else report.code
        return failure(call, status, reason)
    too_many_namespaces = report.phase == "idmap" and report.errno == errno.ENOSPC
    if report.errno and not too_many_namespaces:
        spawning = report.phase in ("fork", "launch")
        where = layout.path if report.phase in ("files", "fifos") else None
        told = OSError(report.errno, report.error, where)
        error = scarcity(told, container=container, spawning=spawning)
        if isinstance(error, SupervisorError):
            return error
    if report.phase == "launch":
        return RuntimeNotFound(f"{report.error}: is it an OCI runtime?", name=call.head.path)
    if report.phase in ("pid", "console"):  # what it should have sent
        return failure(call, 0, report.error)
    return ShimError(f"{report.error}{_advice(report)}", container=container)


def _advice(report: Refused) -> str:
    """Return what can be done where a root filesystem couldn't be mounted."""
    if report.phase == "idmap":
        why = _NO_MAPPING.get(report.errno)
        return f"{'' if why is None else f': {why}'}. {_INSTEAD}"
    advice = _NO_LAYER.get(report.errno) if report.phase == "layer" else None
    return f": {advice}" if advice else ""
