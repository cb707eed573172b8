"""The task of one process: from its launch or adoption to the end of its shim."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from ..runtime import Call
from ..shim import TOLD, ExitFifo, Shim
from ..stdio import Console, Stdio, files_made
from ..tasks import background_nursery, nap
from ..values import Point, ProcessEvent, ShimExited, SupervisorError, TooManyFiles
from ._begin import launch
from ._shared import shielded
from ._task import ProcessTask

logger: Final = logging.getLogger("supervisor")

_LAST_MOMENT_SECONDS: Final = 0.1
_SCARCITY_SECONDS: Final = 0.05


@trio.lowlevel.enable_ki_protection
async def run_process(
    task: ProcessTask,
    call: Call,
    stdio: Stdio,
    console: Console | None,
    options: Sequence[str] = (),
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Launch it and stay with it until its end is settled and its shim is gone.

    It has started when the shim has reported the process. Before that, errors go to
    whoever started the task, and what was launched is ended again. ``options`` are the
    shim's, besides those of its streams.
    """
    try:
        with task.launching, files_made(stdio) as ready:
            await launch(task, call, ready, console, options)
        if task.launching.cancelled_caught:
            raise ShimExited(
                f"the launch of {task.id} was given up: its container is being deleted",
                container=task.container,
            )
        task.life.note(ProcessEvent.MADE)
    except BaseException:
        task.close()
        task.life.note(ProcessEvent.LAUNCH_FAILED)
        raise
    await watch_process(task, task_status=task_status)


@trio.lowlevel.enable_ki_protection
async def watch_process(
    task: ProcessTask, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for its end, settle it, and wait until its shim is gone.

    Cancellation: everything goes on running, for another supervisor to adopt.
    """
    task_status.started()
    try:
        with task.watching:
            await _watch(task)
    finally:
        await _await_last_moment(task)
        task.close()
        if task.watching.cancel_called or not task.life.is_gone():
            task.life.note(ProcessEvent.LEAVE)  # from here on nothing tells how it ends


async def _watch(task: ProcessTask) -> None:
    if task.handles.exit is not None:
        await _await_exit(task, task.handles.exit)
        task.handles.exit = None
    while task.end.status is None:
        try:
            await task.end.settle()
        except TooManyFiles:
            # Raised from here it would end everybody's tasks; what is on disk can wait.
            await nap(_SCARCITY_SECONDS)
    task.delivery.look()
    if task.handles.shim is not None:
        await _see_off(task, task.handles.shim)
    task.delivery.warn()
    task.life.note(ProcessEvent.SHIM_GONE)


async def _await_exit(task: ProcessTask, exit: ExitFifo) -> None:
    """Wait until the shim closes ``exit``, and settle the end if the shim has recorded it."""
    with contextlib.ExitStack() as patrolled:
        if task.handles.process is not None:
            patrolled.enter_context(
                task.shared.patrol.watching(task.handles.process, partial(_end_stuck_shim, task))
            )
        patrolled.enter_context(task.shared.ooms.watching(task.group.path, task.end.outlive))
        await exit.wait_end()
    task.shared.reach(Point.EXIT_SEEN)
    task.kept_by_others = exit.kept
    if task.end.status is None:  # that of an adopted one may have been settled long ago
        with contextlib.suppress(TooManyFiles):
            task.end.settle_recorded()  # mostly, and then nobody waits for the rest
    exit.close()  # from here on there is one descriptor at least


async def _see_off(task: ProcessTask, shim: Shim) -> None:
    """Return when the shim of an ended process is gone.

    That of an init stays for what is unread until the container is deleted; that of an exec
    until somebody knows how it has ended.
    """
    if not task.record.exec:
        await shim.wait_gone()
        return
    async with background_nursery() as nursery:
        nursery.start_soon(_hear_out, task)
        await shim.wait_gone()
        await task.terminal.settle(task.deadlines.drain)


@trio.lowlevel.enable_ki_protection
async def _hear_out(task: ProcessTask) -> None:
    """Tell the shim of an ended exec that its end is known, and what is unread in our hands."""
    await task.collected.wait()
    while not task.end.owned.value:
        await task.end.owned.wait_value(True)
    with contextlib.suppress(SupervisorError, OSError):
        if task.record.terminal:
            await task.terminal.hear_last_words(task.deadlines.drain)
    with contextlib.suppress(SupervisorError, OSError):
        await task.control.send_patiently(TOLD)


def _end_stuck_shim(task: ProcessTask) -> None:
    """Kill a shim that doesn't record the end of its process; then the kernel tells it."""
    if task.handles.exit is not None and not task.handles.exit.watched():
        return  # it has, and we were the slow ones
    if task.handles.shim is not None and task.end.owned.value:
        logger.warning("%s/%s: its shim is stuck: killed", task.container, task.id)
        task.handles.shim.kill()


async def _await_last_moment(task: ProcessTask) -> None:
    """Reap a shim that is just about to end: later nobody would, and it is our child.

    One that holds unread output stays, so this doesn't wait for long.
    """
    shim, exit = task.handles.shim, task.handles.exit
    ended = task.end.status is not None or (exit is not None and not task.handles.watched())
    left = task.watching.cancel_called or task.life.is_gone()
    if ended and shim is not None and not left:
        with shielded(_LAST_MOMENT_SECONDS):
            await shim.wait_gone()
