"""Adopt one container that an earlier supervisor left, or that another supervisor released."""

from __future__ import annotations

import logging
from typing import Final

import attrs
import trio

from ..container import (
    Core,
    adopt_exec,
    delete,
    discard_exec,
    finish_delete,
    finish_stop,
    hidden_gate,
    sweep,
)
from ..observers import Point
from ..process import (
    GATE_SECONDS,
    Finding,
    Found,
    ProcessTask,
    Shared,
    adopt_process,
    gather,
    load_process,
    watch_process,
)
from ..runtime import STARTED
from ..state import (
    Asked,
    ContainerLayout,
    ContainerRecord,
    Intent,
    ProcessLayout,
    ProcessRecord,
    load,
)
from ..system import Lock
from ..tasks import nap, within
from ..values import (
    CleanupIncomplete,
    InfrastructureError,
    OCIRuntimeError,
    RuntimeTimeout,
    State,
    StateCorrupt,
    SupervisorError,
)
from ._directories import in_flight, load_record, strange

logger: Final = logging.getLogger("supervisor")
_OF_ONE: Final = (SupervisorError, OSError)  # errors that concern one container only
_POLL_SECONDS: Final = 0.005
DELETED_ELSEWHERE: Final = "its container was deleted by another supervisor"


@attrs.frozen(kw_only=True)
class Broken:
    """A container that can't be supervised; the files are unchanged.

    Attributes:
        id: the container's id.
        path: the container's directory.
        reason: what is wrong, for people.
    """

    id: str
    path: str
    reason: str


@attrs.frozen(kw_only=True)
class Recovery:
    """What adoption needs of the supervisor that opens.

    Attributes:
        shared: what the supervisor's parts share.
        nursery: where the tasks of adopted processes run.
        delete_unstarted: whether a container that was never started is deleted.
    """

    shared: Shared
    nursery: trio.Nursery
    delete_unstarted: bool = False

    def core_of(self, layout: ContainerLayout, record: ContainerRecord, lock: Lock | None) -> Core:
        """Return a container that has no processes yet."""
        return Core(
            shared=self.shared,
            nursery=self.nursery,
            layout=layout,
            record=record,
            lock=lock,
            state=State.CREATED,
        )


async def adopt(recovery: Recovery, layout: ContainerLayout) -> Core | Broken | None:
    """Adopt one container.

    Returns:
        None if nothing is left: the create was never finished, or the delete was finished now.

    Raises:
        InfrastructureError: the machine has no space or descriptor left just now.

    Cancellation: the container's lock and descriptors are released.
    """
    try:
        why = strange(layout)
        if why is not None:
            return Broken(id=layout.id, path=layout.path, reason=why)
        lock = Lock.take(layout.lock) or await _await_in_flight(recovery, layout)
    except (FileNotFoundError, NotADirectoryError):
        return None  # deleted just now
    except InfrastructureError:
        raise
    except _OF_ONE as error:
        return _broken(layout, error)
    core = None
    try:
        record = load_record(recovery.shared.root, layout)
        core = await _adopt_known(recovery, layout, record, lock)
        return core
    except InfrastructureError as error:
        if isinstance(error, CleanupIncomplete):
            return _broken(layout, error)
        raise
    except _OF_ONE as error:
        return _broken(layout, error)
    finally:
        if core is None and lock is not None:
            lock.release()


async def _await_in_flight(recovery: Recovery, layout: ContainerLayout) -> Lock | None:
    """Return the lock, if an owner who makes or removes the container releases it in time.

    The owner may be a killed supervisor, whose runtime calls hold the lock until they end.
    """
    with within(recovery.shared.deadlines.shim):
        while in_flight(layout):
            await nap(_POLL_SECONDS)
            lock = Lock.take(layout.lock)
            if lock is not None:
                return lock
    return None


async def take_over(recovery: Recovery, core: Core) -> Core | Broken | None:
    """Adopt a container that was foreign, if the owner has released the lock.

    The caller's `Container` and `Process` objects stay the same.

    Returns:
        As `adopt`; None also if the container is still foreign.

    Raises, Cancellation: as `adopt`; the container then stays foreign.
    """
    try:
        lock = Lock.take(core.layout.lock)
    except (FileNotFoundError, NotADirectoryError):  # the owner has deleted the container
        forget(core)
        return None
    except InfrastructureError:
        raise
    except _OF_ONE as error:
        return _broken(core.layout, error)
    if lock is None:
        return None
    try:
        return await _take_over_locked(recovery, core, lock)
    except CleanupIncomplete as error:  # ours, as after any delete that failed
        return _broken(core.layout, error)
    except BaseException as error:
        core.disown()
        lock.release()
        if isinstance(error, InfrastructureError) or not isinstance(error, _OF_ONE):
            raise
        return _broken(core.layout, error)


async def _take_over_locked(recovery: Recovery, core: Core, lock: Lock) -> Core | None:
    core.record = load_record(recovery.shared.root, core.layout)
    core.own(lock)
    core.init.gate.look_again()
    if core.record.intent is Intent.DELETE:
        await delete(core, force=True)
        return None
    await _settle_again(recovery, core, core.init)
    return core if await _complete(recovery, core) else None


async def delete_again(core: Core) -> Broken | None:
    """Repeat the failed delete of a container of ours; return what is wrong if it fails again."""
    try:
        await delete(core, force=True)
    except CleanupIncomplete as error:
        return _broken(core.layout, error)
    return None


def forget(core: Core) -> None:
    """Drop a container that was deleted elsewhere, and close all descriptors of the container."""
    core.write_off(DELETED_ELSEWHERE)
    core.gone()


def _broken(layout: ContainerLayout, error: Exception) -> Broken:
    logger.warning("container %s is broken: %s", layout.id, error)
    return Broken(id=layout.id, path=layout.path, reason=str(error))


async def _adopt_known(
    recovery: Recovery,
    layout: ContainerLayout,
    record: ContainerRecord,
    lock: Lock | None,
) -> Core | None:
    if lock is None:
        return await _watch_foreign(recovery, layout, record)
    recovery.shared.observers.notify(Point.ADOPTING)
    sweep(layout.path)
    core = recovery.core_of(layout, record, lock)
    if record.intent is Intent.DELETE:
        await finish_delete(core)
        return None
    try:
        init = load_process(layout.init)
    except FileNotFoundError:
        await finish_delete(core)
        return None
    found = gather(recovery.shared, record, layout.init)
    recovery.shared.observers.notify(Point.GATHERED)
    if found.finding is Finding.UNFINISHED:
        await _give_up(recovery.shared, found)
        await finish_delete(core)
        return None
    core.add_init(init)
    await adopt_process(core.init, found)
    recovery.nursery.start_soon(watch_process, core.init, name=core.init.task_name)
    recovery.shared.observers.notify(Point.ADOPTED)
    try:
        return core if await _complete(recovery, core) else None
    except BaseException:
        core.dismiss()
        raise


async def _complete(recovery: Recovery, core: Core) -> bool:
    """Finish what the last owner began; return False if the container was deleted."""
    await _find_state(recovery, core)
    core.note("adopted")
    if recovery.delete_unstarted and core.state is State.CREATED:
        await delete(core, force=True)
        return False
    await _adopt_execs(recovery, core)
    recovery.shared.observers.notify(Point.EXECS_ADOPTED)
    asked = core.asked()
    if asked is not None or core.record.intent is Intent.STOP:
        name = f"{core.init.task_name}: stop"
        recovery.nursery.start_soon(_finish_stop, core, asked, name=name)
    return True


async def _settle_again(recovery: Recovery, core: Core, process: ProcessTask) -> None:
    """Settle the final exit status of a process, if the last owner hasn't settled the status.

    As an onlooker we may have reported an unknown exit status for a process that is still alive.
    """
    if process.status is not None:  # else the process's task does this
        await process.end.settle_again(gather(recovery.shared, core.record, process.layout))


@trio.lowlevel.enable_ki_protection
async def _finish_stop(core: Core, asked: Asked | None) -> None:
    """Finish a stop that a killed owner, or another supervisor, had begun."""
    try:
        await finish_stop(core, asked)
    except (SupervisorError, OSError) as error:
        logger.warning("container %s: the stop can't be finished: %s", core.record.id, error)


async def _find_state(recovery: Recovery, core: Core) -> None:
    """Find out whether a container with a living init was started."""
    if core.state is not State.CREATED:
        return
    if not core.was_started():
        told = await _ask(core)
        if told == "created" or (told == "stopped" and hidden_gate(core) is not None):
            core.init.gate.mark_waiting()
            return
        if told in STARTED:  # also "paused": the container was started before
            core.mark_started()
    if core.state is State.CREATED:  # the init may have ended meanwhile
        core.state = State.RUNNING
    if core.was_just_started():
        core.init.gate.mark_waiting(seconds=GATE_SECONDS)


async def _ask(core: Core) -> str | None:
    """Ask the runtime for the state; None if the runtime can't answer: then init just lives."""
    try:
        return await core.runtime.status()
    except (OCIRuntimeError, RuntimeTimeout) as error:
        logger.warning("container %s: the state is unknown: %s", core.record.id, error)
        return None


async def _adopt_execs(recovery: Recovery, core: Core) -> None:
    for layout in core.layout.processes():
        if layout.id == core.init.id:
            continue
        try:
            await _adopt_exec(recovery, core, layout)
        except InfrastructureError:
            raise
        except (StateCorrupt, OSError) as error:
            logger.warning("%s: exec %s is set aside: %s", core.record.id, layout.id, error)


async def _adopt_exec(recovery: Recovery, core: Core, layout: ProcessLayout) -> None:
    kept, lock = False, None
    known = core.execs.get(layout.id)
    try:
        lock = Lock.take(layout.lock)
        if known is None:
            kept = await _adopt_locked_exec(recovery, core, layout, lock)
        elif lock is not None:  # the owner of the exec has released the lock
            known.own(lock)
            kept = True  # the exec's task, which is still running, releases the lock
            await _settle_again(recovery, core, known)
    except FileNotFoundError:
        pass  # the owner is removing the exec
    finally:
        if lock is not None and not kept:
            lock.release()


async def _adopt_locked_exec(
    recovery: Recovery, core: Core, layout: ProcessLayout, lock: Lock | None
) -> bool:
    """Adopt an exec; return whether the exec's task holds the lock now."""
    record, found = load(ProcessRecord, layout.record), gather(recovery.shared, core.record, layout)
    if found.finding is Finding.UNFINISHED:
        if lock is None:
            found.close()
        else:
            await _give_up(recovery.shared, found)
            await discard_exec(core, layout)
        return False
    process = core.new_process(layout, record, lock=lock)
    await adopt_process(process, found)
    adopt_exec(core, process)
    return lock is not None


async def _watch_foreign(
    recovery: Recovery, layout: ContainerLayout, record: ContainerRecord
) -> Core | None:
    """Watch a foreign container, without changing anything."""
    try:
        init = load_process(layout.init)
    except FileNotFoundError:
        return None  # being created, or deleted
    core = recovery.core_of(layout, record, None)
    core.add_init(init)
    found = gather(recovery.shared, record, layout.init)
    if found.finding is Finding.UNFINISHED:
        found.close()
        return None
    await adopt_process(core.init, found)
    recovery.nursery.start_soon(watch_process, core.init, name=core.init.task_name)
    if core.refresh() is State.CREATED:
        core.init.gate.mark_waiting()
    elif core.was_just_started():
        core.init.gate.mark_waiting(seconds=GATE_SECONDS)
    try:
        await _adopt_execs(recovery, core)
    except BaseException:
        core.dismiss()
        raise
    return core


async def _give_up(shared: Shared, found: Found) -> None:
    """Make the shim of an unfinished create give up."""
    try:
        await found.shim.give_up(shared.deadlines.shim)
    finally:
        found.close()
