"""Launch a shim, read the shim's report, and make the error of a failed launch."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from typing import Final

import attrs

from ..observers import Point
from ..runtime import Call, failure, reason_in, run
from ..shim import Leash, Made, Refused, Shim, launch, read_report
from ..state import ProcessLayout
from ..system import write_whole
from ..tasks import shielded, within
from ..values import (
    CreateTimeout,
    RuntimeFailed,
    RuntimeNotFound,
    ShimError,
    ShimExited,
    SupervisorError,
    raise_if_scarce,
)
from ._shared import Shared

_AGAIN_SECONDS: Final = 5.0
_AGAIN: Final = ".again"
_NO_PROGRAM: Final = "/.trio-supervisor/no-program"

_NO_LAYER: Final = {
    errno.ENODEV: "this kernel has no overlay file system (modprobe overlay)",
    errno.EPERM: "mounting needs root, or the right to make user namespaces",
    errno.EINVAL: "this file system can't be under an overlay, or is an overlay of an overlay",
}
"""What the shim's errors for a writable layer mean, where the number alone says too little."""

_NO_MAPPING: Final = {
    errno.ENOSYS: "ID-mapped mounts need Linux 5.12",
    errno.EINVAL: "this file system can't be shown with other ids",
    errno.EPERM: "user namespaces, or other ids for this file system, aren't allowed",
    errno.ENOSPC: "there are too many user namespaces (/proc/sys/user/max_user_namespaces)",
}
"""What the shim's errors for an ID-mapped root filesystem mean."""

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
    """Launch a shim, and return the shim and the process that the runtime made under the shim.

    Args:
        shared: what the supervisor's parts share.
        layout: the process directory.
        call: the runtime's call.
        options: the shim's options, besides those of every shim.
        fds: descriptors that the shim inherits.
        leash: what the shim watches, or None.
        cgroup: the container's cgroup, or None.

    Raises:
        CreateTimeout: the shim didn't report within ``deadlines.create``.
        RuntimeFailed, RuntimeNotFound, ShimExited, ShimError, ShimNotFound, DiskFull,
            TooManyFiles, TooManyProcesses: what the report says, or that there was none.

    Cancellation: as after an error, the shim has killed all that it made, and exited.
    """
    words, program = call.words, call.head.program()
    shim, report_fd = launch(
        shared.shim,
        words,
        layout=layout,
        options=options,
        apart=shared.apart,
        runtime_stays=cgroup is not None,
        fds=fds,
        leash=leash,
        program=program,
    )
    shim.join(shared.wards)
    shared.observers.notify(Point.LAUNCHED)
    try:
        return shim, await _made(shared, layout, call, report_fd)
    except BaseException:
        with shielded(shared.deadlines.cleanup):
            await shim.give_up(shared.deadlines.shim)
        shim.close()
        raise


async def _made(shared: Shared, layout: ProcessLayout, call: Call, report_fd: int) -> Made:
    """Return the process that a shim reports; raise the error of any other report, or of none."""
    seconds = shared.deadlines.create
    report = None
    with within(seconds) as scope:
        report = await read_report(report_fd)
    if isinstance(report, Made):
        shared.observers.notify(Point.REPORTED)
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
    """Whether a runtime failed before writing to the log."""
    return (
        report is not None
        and report.phase == "runtime"
        and report.code != 0
        and not _has_begun(call.log)
    )


async def _said_aloud(shared: Shared, layout: ProcessLayout, call: Call) -> str:
    """Call a runtime that failed without a log once more, and return what the runtime prints.

    A runtime's standard error is the container's own. (A pipe of ours would have to be read for as
    long as any process in the container has it open.) So the message of the first call went where
    the container's errors go, by default nowhere. A wrong option, a missing library, or another
    program in the runtime's place fails in the same way again. If the second call gets further, the
    cause was another one. What the second create makes is removed with the rest, never started.

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
    """Return a create or an exec for a second call; None if a second call isn't possible.

    The second call has its own log. A create that has made something isn't repeated: the second
    would trip over that. An exec gets a program that doesn't exist.
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
    """Whether a log has content; also true without a log."""
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
) -> SupervisorError:
    """Return the error for a report without a process, or for no report.

    Raises: as `raise_if_scarce`, if the report has an error number that says so.
    """
    container = call.head.container
    if report is None:
        said = reason_in(layout.shim_log)
        detail = f": {said}" if said else "; the shim's log is empty"
        return ShimExited(f"the shim exited before its report{detail}", container=container)
    if report.phase == "runtime":
        reason = reason_in(call.log) or aloud
        status = -report.signal if report.signal else report.code
        return failure(call, status, reason)
    too_many_namespaces = report.phase == "idmap" and report.errno == errno.ENOSPC
    if report.errno and not too_many_namespaces:
        spawning = report.phase in ("fork", "launch")
        where = layout.path if report.phase in ("files", "fifos") else None
        told = OSError(report.errno, report.error, where)
        raise_if_scarce(told, container=container, spawning=spawning)
    if report.phase == "launch":
        return RuntimeNotFound(f"{report.error}: is it an OCI runtime?", name=call.head.path)
    if report.phase in ("pid", "console"):  # what the runtime should have sent
        return failure(call, 0, report.error)
    return ShimError(f"{report.error}{_advice(report)}", container=container)


def _advice(report: Refused) -> str:
    """Return what to do where a root filesystem couldn't be mounted, for the end of a message."""
    if report.phase == "idmap":
        why = _NO_MAPPING.get(report.errno)
        return f"{'' if why is None else f': {why}'}. {_INSTEAD}"
    advice = _NO_LAYER.get(report.errno) if report.phase == "layer" else None
    return f": {advice}" if advice else ""
