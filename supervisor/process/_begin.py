"""Begin to supervise a process: launch a new one, or adopt one of another supervisor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from ..children import PidFd
from ..observers import Point
from ..runtime import Call
from ..shim import ExitFifo, Made, Shim, make_fifos
from ..state import ProcessRecord
from ..system import HIDDEN, lifted
from ..tasks import shielded
from ..values import ProcessEvent, happened_to
from ._evidence import Finding, Found, is_shims_child
from ._launch import launch_process
from ._task import ProcessTask

_MAX_OOM_SCORE: Final = 1000


async def launch(task: ProcessTask, call: Call, options: Sequence[str], fds: Sequence[int]) -> None:
    """Launch a process, and take over the descriptors. After an error, kill what was made.

    ``options`` are the shim's, and ``fds`` the descriptors that these name.
    """
    record = task.record
    with happened_to(task.container):
        if record.exec:  # an init's cgroup is new
            task.group.begin()
            task.end.look_at_init()
        make_fifos(task.layout.exit, task.layout.control)
        task.shared.observers.notify(Point.FIFOS_MADE)
        task.handles.exit = ExitFifo(task.layout.exit)
        reserve = lifted(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    try:
        task.handles.shim, made = await launch_process(
            task.shared,
            task.layout,
            call,
            options=[*_oom_score(record), *_umask(record), *options],
            fds=fds,
            leash=task.leash,
            cgroup=task.group.path,
        )
    finally:
        os.close(reserve)  # so that there is a descriptor for the pidfd
    try:
        task.handles.process = _opened(made, task.handles.shim)
        task.gate.pid = made.pid  # also if the process has ended and was reaped by now
        if not record.exec:
            task.gate.note()
        task.streams.open(hold=task.keep)
        task.shared.observers.notify(Point.WATCHED)
        # A caller that was cancelled meanwhile doesn't get the process: started() wouldn't raise.
        await trio.lowlevel.checkpoint_if_cancelled()
    except BaseException:
        await _undo_made(task)
        raise


async def _undo_made(task: ProcessTask) -> None:
    """Kill a process that was made, but can't be supervised: no descriptor was left, say."""
    task.streams.close()
    if task.handles.process is not None:
        task.handles.process.kill()
    if task.handles.shim is not None:
        with shielded(task.deadlines.cleanup):
            await task.handles.shim.give_up(task.deadlines.shim)


async def adopt_process(task: ProcessTask, found: Found) -> None:
    """Take over a process that another supervisor launched.

    If the process has ended, this settles the exit status; else `watch_process` waits for the end.

    Cancellation: the descriptors are closed.
    """
    task.group.kills = found.oom_kills
    with _adopting(task, found, owned=task.end.owned.value):
        if found.status is not None:
            task.end.tell(found.status)
        elif found.finding is not Finding.RUNNING and not _is_kept(task, found):
            await task.end.settle(lost=found.lost)


def look_on_process(task: ProcessTask, found: Found) -> None:
    """Take over a running process without becoming its owner: `watch_process` waits for the end."""
    with _adopting(task, found, owned=False):
        pass


@contextlib.contextmanager
def _adopting(task: ProcessTask, found: Found, *, owned: bool) -> Iterator[None]:
    """Take over the descriptors that were found; after the block, open the streams."""
    task.handles.process, task.handles.shim = found.process, found.shim
    task.handles.exit = found.exit
    found.shim.join(task.shared.wards)
    task.gate.pid = None if found.process is None else found.process.pid
    task.end.look_at_init()
    task.life.note(ProcessEvent.MADE)
    try:
        yield
        task.streams.open(hold=task.keep, owned=owned, adopted=True)
    except BaseException:
        task.close()
        raise


def _is_kept(task: ProcessTask, found: Found) -> bool:
    return task.keep and found.finding is Finding.ORPHAN


def _oom_score(record: ProcessRecord) -> list[str]:
    """Return the shim's option for the OOM score: the process never inherits ours."""
    wanted = record.extra.get("oomScoreAdj")
    fits = isinstance(wanted, int) and abs(wanted) <= _MAX_OOM_SCORE
    return ["--oom-score-adj", str(wanted if fits else 0)]


def _umask(record: ProcessRecord) -> list[str]:
    """Return the shim's option for an exec's umask: runc passes runc's own umask on to an exec.

    A create gets no option: the runtime would make mount points with this umask.
    """
    wanted = (record.extra.get("user") or {}).get("umask") if record.exec else None
    return ["--umask", f"{wanted & 0o777:o}"] if isinstance(wanted, int) else []


def _opened(made: Made, shim: Shim) -> PidFd | None:
    """Return the process that a shim has reported; None if it has ended and was reaped."""
    if made.start_time != HIDDEN:
        return PidFd.open(made.pid, made.start_time)
    process = PidFd.open(made.pid)
    if process is not None and not is_shims_child(shim, made.pid):
        process.close()
        return None
    return process
