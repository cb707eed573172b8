"""The task that watches one process: from the launch or adoption until the shim has exited."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from ..observers import Point
from ..runtime import Call
from ..shim import TOLD, ExitFifo, Shim
from ..stdio import Console, Stdio, files_made
from ..tasks import background_nursery, nap, shielded
from ..values import (
    Event,
    IllegalTransition,
    ProcessEvent,
    State,
    SupervisorError,
    TooManyFiles,
)
from ._begin import launch
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
    """Launch a process, and watch it until the exit status is settled and the shim has exited.

    The task has started when the shim has reported the process. Before that, an error goes to the
    code that started the task, and what was launched is killed. ``options`` are the shim's, besides
    those for the streams.
    """
    try:
        with task.launching, files_made(stdio) as ready:
            words, fds = [*options, *ready.options], ready.fds
            if console is not None:
                words += console.options
                fds += console.fds
            await launch(task, call, words, fds)
        if task.launching.cancelled_caught:
            raise IllegalTransition(
                f"the launch of {task.id} was given up: the container is being deleted",
                state=State.DELETING.value,
                event=Event.EXEC.value,
                container=task.container,
            )
        task.life.note(ProcessEvent.MADE)
    except BaseException as error:
        task.close()
        _note_failure(task, error)
        raise
    await watch_process(task, task_status=task_status)


def _note_failure(task: ProcessTask, error: BaseException) -> None:
    """Note why a launch failed, for all that hold the process."""
    closed = isinstance(error, trio.Cancelled) and task.shared.life.closing
    why = f"its launch failed: {error.message if isinstance(error, SupervisorError) else error}"
    if isinstance(error, trio.Cancelled):
        why = "its supervisor was closed meanwhile" if closed else "its launch was cancelled"
    task.life.fail(why, closed=closed)


@trio.lowlevel.enable_ki_protection
async def watch_process(
    task: ProcessTask, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait until a process has ended, settle the exit status, and wait until the shim has exited.

    Cancellation: process and shim go on, for another supervisor to adopt.
    """
    task_status.started()
    try:
        with task.watching:
            await _watch(task)
    finally:
        await _await_last_moment(task)
        task.close()
        if task.watching.cancel_called or not task.life.is_gone():
            task.life.note(ProcessEvent.LEAVE)  # no exit status is seen after this


async def _watch(task: ProcessTask) -> None:
    if task.handles.exit is not None:
        await _await_exit(task, task.handles.exit)
        task.handles.exit = None
    while task.end.status is None:
        try:
            await task.end.settle()
        except TooManyFiles:
            # Raised from here, the error would end the tasks of all containers. The files on disk
            # can wait.
            await nap(_SCARCITY_SECONDS)
    task.delivery.look()
    if task.handles.shim is not None:
        await _see_off(task, task.handles.shim)
    task.delivery.warn()
    task.life.note(ProcessEvent.SHIM_GONE)


async def _await_exit(task: ProcessTask, exit: ExitFifo) -> None:
    """Wait until the shim closes ``exit``, and settle the exit status if the shim recorded one."""
    with contextlib.ExitStack() as patrolled:
        if task.handles.process is not None:
            patrolled.enter_context(
                task.shared.patrol.watching(task.handles.process, partial(_end_stuck_shim, task))
            )
        patrolled.enter_context(task.shared.ooms.watching(task.group.path, task.end.outlive))
        await exit.wait_end()
    task.shared.observers.notify(Point.EXIT_SEEN)
    task.kept_by_others = exit.kept
    if task.end.status is None:  # an adopted process may have been settled long ago
        with contextlib.suppress(TooManyFiles):
            task.end.settle_recorded()  # works as a rule; then no caller waits for the rest
    exit.close()  # now at least one descriptor is free


async def _see_off(task: ProcessTask, shim: Shim) -> None:
    """Return when the shim of an ended process has exited.

    While output is unread, an init's shim stays until the container is deleted. An exec's shim
    stays until a caller knows how the exec ended.
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
    """Let an ended exec's shim exit: a caller knows the status, and we hold the unread output."""
    await task.collected.wait()
    while not task.end.owned.value:
        await task.end.owned.wait_value(True)
    with contextlib.suppress(SupervisorError, OSError):
        if task.record.terminal:
            await task.terminal.hear_last_words(task.deadlines.drain)
    with contextlib.suppress(SupervisorError, OSError):
        await task.control.send_patiently(TOLD)


def _end_stuck_shim(task: ProcessTask) -> None:
    """Kill a shim that doesn't record an exit status; then the kernel reports the status."""
    if task.handles.exit is not None and not task.handles.exit.watched():
        return  # the shim has recorded the status, and we were slow
    if task.handles.shim is not None and task.end.owned.value:
        logger.warning("%s/%s: killed the shim, which was stuck", task.container, task.id)
        task.handles.shim.kill()


async def _await_last_moment(task: ProcessTask) -> None:
    """Reap a shim that is about to exit: it is our child, and no task would reap it later.

    A shim that holds unread output stays, so the wait is short.
    """
    shim, exit = task.handles.shim, task.handles.exit
    ended = task.end.status is not None or (exit is not None and not task.handles.watched())
    left = task.watching.cancel_called or task.life.is_gone()
    if ended and shim is not None and not left:
        with shielded(_LAST_MOMENT_SECONDS):
            await shim.wait_gone()
