"""Delete a container: for `delete`, a create that failed, recovery, and a broken container.

The order: the processes end; the runtime's ``delete --force``; all processes that are left in the
cgroup; the cgroup's directories in every hierarchy; the shims; the container's directory (renamed
first). Each step may be repeated: the next open finishes a clean-up that was killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from ..bundle import read_config
from ..children import is_left_to_us
from ..observers import Point, waiting
from ..process import ProcessTask, Shared, kill_found
from ..shim import RELEASE, ExitFifo, Shim, send_line
from ..state import ContainerLayout, Intent, ProcessLayout, give_back, read_pid, read_shim
from ..system import held
from ..tasks import forked, nap, shielded, within
from ..values import (
    CleanupIncomplete,
    Event,
    IllegalTransition,
    InfrastructureError,
    RuntimeFailed,
    RuntimeTimeout,
    State,
    StateCorrupt,
    SupervisorError,
)
from ._core import Core
from ._proof import is_ours
from ._removal import remove_directory
from ._stop import end, look_for_wards

logger: Final = logging.getLogger("supervisor")

_POLL_SECONDS: Final = 0.002


async def delete(core: Core, *, force: bool) -> None:
    """Remove a container with all traces; see `Container.delete`."""
    if core.state is not State.DELETED:
        core.require_own("delete")
    with waiting():
        async with core.deleting:
            core.see()
            if core.state is not State.DELETED:
                core.apply(Event.FORCE_DELETE if force else Event.DELETE)
                await _delete(core)


async def _delete(core: Core) -> None:
    """The rest of a delete, which isn't cancelled once begun."""
    try:
        with contextlib.suppress(OSError):  # a full disk must not prevent a delete
            core.intend(Intent.DELETE)
            core.shared.observers.notify(Point.DELETE_INTENDED)
        with shielded(core.shared.deadlines.cleanup):
            await _end_processes(core)
        await _deliver(core)
        core.shared.observers.notify(Point.PROCESSES_ENDED)
        execs = list(core.execs.values())
        await _remove(core)
        with shielded(core.shared.deadlines.shim):
            for process in (core.init, *execs):
                await process.life.wait_gone()  # the task reaps the shim
    except (SupervisorError, OSError) as error:
        core.apply(Event.DELETE_FAILED)
        if isinstance(error, CleanupIncomplete):
            core.gone(error)
            raise
        failed = _incomplete(core, str(error))
        core.gone(failed)
        raise failed from error
    core.apply(Event.DELETED)
    for process in core.execs.values():  # also one that was launched meanwhile
        process.abandon()
    core.gone()


async def _deliver(core: Core) -> None:
    """Wait while a reader takes the output that is copied: then the copiers end."""
    deliveries = [process.delivery for process in (core.init, *core.execs.values())]
    late = [delivery for delivery in deliveries if delivery.is_late()]
    if late:
        seconds = core.shared.deadlines.cleanup
        with within(seconds, shield=True, still=False):  # the reader isn't the kernel
            async with trio.open_nursery() as nursery:
                for delivery in late:
                    nursery.start_soon(delivery.wait, name=f"{core.init.task_name}: delivery")


async def _end_processes(core: Core) -> None:
    """End init, then wait for what the execs' shims record before their directories go."""
    with contextlib.suppress(SupervisorError, OSError):  # the runtime's delete may still manage
        if core.init.status is None:
            await end(core)
    for process in list(core.execs.values()):
        process.give_up()
        with contextlib.suppress(OSError, IllegalTransition):  # ended, or being launched
            process.send_signal(signal.SIGKILL)
        await process.life.wait_over()
    _kill_set_aside(core)
    core.close_streams()


def _kill_set_aside(core: Core) -> None:
    """Kill execs that couldn't be adopted: not everywhere they fall with init or the cgroup."""
    for layout in core.layout.processes():
        if layout.id != core.init.id and layout.id not in core.execs:
            with contextlib.suppress(SupervisorError, OSError):
                kill_found(core.shared, core.record, layout)


# ---- what was begun ---------------------------------------------------------------------


async def undo(core: Core, *, ran: bool) -> None:
    """Remove what a failed create has left; what can't be removed is listed.

    ``ran`` tells whether the runtime may have run; if not, the runtime has nothing to forget.
    """
    if forked():
        return
    try:
        await _remove(core, ran=ran)
    except CleanupIncomplete as error:
        core.gone(error)
        assert core.lock is not None
        core.lock.release()


async def finish_delete(core: Core) -> None:
    """Remove what a killed supervisor has begun to make, or to delete: no process is adopted.

    Raises, Cancellation: as `delete`.
    """
    logger.info("container %s: unfinished create or delete: removed", core.record.id)
    cgroup = core.record.cgroup
    if cgroup is not None and core.record.boot_id == core.shared.boot_id:
        await core.shared.hierarchies.kill(cgroup)
    await _remove(core)


async def delete_broken(core: Core) -> None:
    """Kill the processes of a broken container, and remove the container; the files may be damaged.

    Raises:
        CleanupIncomplete: something is left.
    """
    known = core.runtime.knows()
    try:
        with shielded(core.shared.deadlines.cleanup):
            await _end_found(core)
        await _remove(core, ran=known)
    except (OSError, StateCorrupt) as error:
        raise _incomplete(core, str(error)) from error


async def _end_found(core: Core) -> None:
    """End the processes and the shims."""
    shared, layouts = core.shared, core.layout.processes()
    for layout in layouts:
        kill_found(shared, core.record, layout)
    if core.record.cgroup is not None:
        await shared.hierarchies.kill(core.record.cgroup)
    for layout in layouts:
        await _end_shim(shared, layout)
    unseen = [layout.id for layout in layouts if not await _ended(shared, layout)]
    if unseen or any(held(layout.shim) for layout in layouts):
        raise _incomplete(core, "a shim that can't be found doesn't end")


async def _end_shim(shared: Shared, layout: ProcessLayout) -> None:
    """Have a shim kill the process, and exit."""
    with contextlib.closing(Shim.adopt(layout)) as shim, shielded(2 * shared.deadlines.shim):
        if shim.alive():
            await shim.give_up(shared.deadlines.shim)


async def _ended(shared: Shared, layout: ProcessLayout) -> bool:
    """Wait until no shim watches a process any more, also a shim that couldn't be found.

    The fifo ``exit`` shows that. Returns True where ``exit`` isn't a fifo.
    """
    with contextlib.suppress(FileNotFoundError, StateCorrupt):
        with contextlib.closing(ExitFifo(layout.exit)) as exit:
            with within(shared.deadlines.shim):
                await exit.wait_end()
            return not exit.watched()
    return True


# ---- every trace ------------------------------------------------------------------------


async def _remove(core: Core, *, ran: bool = True) -> None:
    """Remove a container whose processes are dead or may be killed.

    Raises:
        CleanupIncomplete: the clean-up took longer than ``deadlines.cleanup`` or a step failed;
            the message lists what is left. The lock stays with the caller.

    Cancellation: shielded, with ``deadlines.cleanup``.
    """
    shared, lock = core.shared, core.lock
    assert lock is not None
    seconds = shared.deadlines.cleanup
    failed: list[str] = []
    with shielded(seconds) as scope:
        if ran:
            await _forget_in_runtime(core, failed)
            shared.observers.notify(Point.FORGOTTEN)
        await _empty_cgroup(core, failed)
        for process in core.layout.processes():
            await end_left(shared, process)
        with within(shared.deadlines.shim):
            await shared.wards.end(core.layout.path)
        shared.observers.notify(Point.CGROUP_REMOVED)
        if not failed:
            with _noted(failed):
                await _await_shims(core)
                shared.observers.notify(Point.SHIMS_GONE)
                give_back(core.layout.path)
                remove_directory(core.layout.path)
        if not failed:
            shared.observers.notify(Point.REMOVED)
            lock.release()
            return
    what = "took too long" if scope.cancelled_caught else "failed"
    raise _incomplete(core, "; ".join(failed) or f"it had {seconds:g} seconds", what=what)


def _incomplete(core: Core, why: str, *, what: str = "failed") -> CleanupIncomplete:
    """Return the error for a container that couldn't be removed, with reason and leftovers."""
    return CleanupIncomplete(
        f"clean-up {what}: {why}. Left: {', '.join(_leftovers(core))}",
        seconds=core.shared.deadlines.cleanup,
        container=core.record.id,
    )


def _leftovers(core: Core) -> Sequence[str]:
    """Return the paths that still exist of a container."""
    cgroup = core.record.cgroup
    groups = [] if cgroup is None else core.shared.hierarchies.remains(cgroup)
    own = [core.runtime.head.place, core.layout.path]
    return [*groups, *(path for path in own if os.path.lexists(path))]


@contextlib.contextmanager
def _noted(failed: list[str]) -> Iterator[None]:
    """Note why a step failed; the step may be repeated later."""
    try:
        yield
    except (SupervisorError, OSError) as error:
        failed.append(str(error))


async def _forget_in_runtime(core: Core, failed: list[str]) -> None:
    """Have the runtime delete the container; or remove the runtime's files, if a hook hangs."""
    layout = core.layout
    for attempt in range(2):
        try:
            if await is_ours(core):
                log = layout.init.log("delete")
                await core.runtime.delete(log=log, has_hooks=lambda: _has_hooks(layout))
            return
        except (SupervisorError, OSError) as error:
            stuck = isinstance(error, RuntimeTimeout) and _has_hooks(layout)
            if stuck and await _forget_without_runtime(core, error):
                return
            if stuck or attempt == 1:
                if not isinstance(error, RuntimeFailed) or _may_be_known(core):
                    failed.append(str(error))
                return
        await _remove_cgroup(core)  # what is left in the cgroup may be why the runtime failed


async def _remove_cgroup(core: Core) -> None:
    """Remove the cgroup, as far as possible within ``deadlines.kill``."""
    if core.record.cgroup is not None:
        with within(core.shared.deadlines.kill):
            await core.shared.hierarchies.remove(core.record.cgroup)


def _has_hooks(layout: ContainerLayout) -> bool:
    """Whether a delete of the container runs hooks, for which the runtime waits."""
    try:
        return bool((read_config(layout.bundle).get("hooks") or {}).get("poststop"))
    except (SupervisorError, AttributeError):
        return False


async def _forget_without_runtime(core: Core, error: Exception) -> bool:
    """Remove what the runtime keeps of a container without processes; return whether that worked.

    The hooks have had their time, and each further delete would only run them once more. A hook
    that fails after the end is a warning (OCI runtime spec, "Lifecycle").
    """
    await _remove_cgroup(core)
    cgroup = core.record.cgroup
    if cgroup is not None and core.shared.hierarchies.exists(cgroup):
        return False
    if not await is_ours(core):
        return False
    remove_directory(core.runtime.head.place)
    if core.runtime.knows():
        return False
    logger.warning("%s: the supervisor removed the runtime's files instead", error)
    return True


def _may_be_known(core: Core) -> bool:
    """Whether a runtime that can't delete a container may keep files of the container, by any name.

    A runtime that doesn't even understand the command line has made nothing: then the failed delete
    doesn't keep the id taken.
    """
    try:
        return any(core.record.id in name for name in os.listdir(core.record.runtime_root))
    except FileNotFoundError:
        return False
    except OSError:
        return True


async def _empty_cgroup(core: Core, failed: list[str]) -> None:
    if core.record.cgroup is None:
        return
    with _noted(failed):
        look_for_wards(core, core.record.cgroup)
        await core.shared.hierarchies.remove(core.record.cgroup)


async def end_left(shared: Shared, layout: ProcessLayout) -> None:
    """Reap the process that a directory names, if the shim was killed and left the process to us.

    The shim may have been killed before the report. A just killed process may need a moment.
    """
    with contextlib.suppress(StateCorrupt, InfrastructureError):
        pid, shim = read_pid(layout.pid), read_shim(layout.shim)
        if pid is None or shim is None or not is_left_to_us() or held(layout.shim):
            return
        with within(shared.deadlines.shim):
            while shared.wards.is_ending(pid, since=shim[1]):
                shared.wards.add(layout.path, pid, since=shim[1])
                await shared.wards.end(layout.path)
                await nap(_POLL_SECONDS)


async def _await_shims(core: Core) -> None:
    """Wait until the shims are gone, and kill those that are stuck.

    A shim that a task of ours watches is waited for, and reaped, by that task alone.
    """
    tasks = {process.id: process for process in core.processes}
    for layout in core.layout.processes():
        if not held(layout.shim):
            continue
        with contextlib.suppress(OSError):
            send_line(layout.control, RELEASE)  # the output won't be read
        task = tasks.get(layout.id)
        if task is not None and task.has_shim:
            await _await_watched(core.shared, task)
        if held(layout.shim):
            await _await_found(core.shared, layout)


async def _await_watched(shared: Shared, task: ProcessTask) -> None:
    for _ in range(2):
        with within(shared.deadlines.shim):
            await task.life.wait_gone()
            return
        task.kill_shim()


async def _await_found(shared: Shared, layout: ProcessLayout) -> None:
    with contextlib.closing(Shim.adopt(layout)) as shim:
        with within(shared.deadlines.shim):
            await shim.wait_gone()
            return
        shim.kill()
        await shim.wait_gone()
