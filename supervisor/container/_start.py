"""Start a created container; the death of the shim ends the attempt."""

from __future__ import annotations

import contextlib
import os
import stat

import trio

from ..observers import Ended, Point
from ..runtime import STARTED
from ..system import lifted, look_at
from ..tasks import expiring, shielded, within
from ..values import (
    Event,
    IllegalTransition,
    InfrastructureError,
    OCIRuntimeError,
    ShimExited,
    Source,
    State,
    SupervisorError,
)
from ._core import Core
from ._unrun import require_run, root_of

_HALF_SECONDS = 0.25  # a whole start takes some milliseconds
_GATE_SECONDS = 0.05
_TO_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW

Failure = OCIRuntimeError | InfrastructureError | OSError


async def start(core: Core) -> None:
    """Let the init of a container run the user's program; see `Container.start`."""
    core.require_own("start")
    with core.operating():
        await _start(core)


async def _start(core: Core) -> None:
    if not core.init.handles.watched():  # init has ended, and its exit status isn't settled yet
        await core.init.wait()
    _raise_if_lost(core)
    core.apply(Event.START)
    core.init.gate.note()
    if core.init.gate.reports:
        await _attempt(core)
        return
    with root_of(core) as root:
        await _attempt(core)
        if core.state in (State.RUNNING, State.STOPPED):
            await require_run(core, core.init, root)


async def _attempt(core: Core) -> None:
    try:
        failure = await _call_start(core)
        if failure is not None:
            await _look_again(core)
    except BaseException:
        with shielded(core.shared.deadlines.cleanup):
            await _look_again(core)
        raise
    _raise_if_lost(core)
    if failure is not None and core.state is State.CREATED:
        raise failure
    _raise_if_taken_away(core, failure)
    if failure is None:
        _started(core)


async def _call_start(core: Core) -> Failure | None:
    """Call the runtime's start, until the call ends or the waiting init ends."""
    core.shared.observers.notify(Point.STARTING)
    with expiring() as expire:

        def give_up_soon(ended: Ended) -> None:
            if ended.process != core.init.id:
                return
            # If the end was recorded, the program may just have been quick: the runtime gets
            # some time to finish. If the shim was lost, the runtime would wait for a
            # killed init.
            quick = ended.status.source is Source.SHIM
            expire(core.shared.deadlines.shim if quick else 0)

        def patience() -> float:
            # With crun 1.8, an init after half a start fails at the next start. A start whose init
            # has ended may wait for ever.
            return _HALF_SECONDS if core.init.status is None else 0

        with core.observers.observing(Ended, give_up_soon):
            try:
                log = core.layout.init.log("start")
                await core.runtime.start(log=log, patience=patience)
            except (OCIRuntimeError, InfrastructureError, OSError) as error:
                return None if await _open_hidden_gate(core) else error
    return None


def hidden_gate(core: Core) -> str | None:
    """Return the fifo at which an init waits that /proc hides (hidepid): runc's ``exec.fifo``.

    None if the init doesn't wait, isn't hidden, or has another runtime.
    """
    if core.init.pid is None or core.init.end.is_near() or look_at(core.init.pid) is not None:
        return None
    gate = os.path.join(core.record.runtime_root, core.record.id, "exec.fifo")
    return gate if os.path.lexists(gate) else None


async def _open_hidden_gate(core: Core) -> bool:
    """Let a hidden init run, which runc takes for stopped; return whether the init runs.

    ``runc run`` doesn't look into /proc, but ``runc start`` does, and refuses. So this function
    does the rest of ``runc start``: read the init's byte from the fifo, and remove the fifo.
    """
    gate = hidden_gate(core)
    if gate is None:
        return False
    try:
        fd = lifted(os.open(gate, _TO_READ))
    except OSError:  # the fifo was opened just now
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return False
        with within(core.shared.deadlines.shim):
            await trio.lowlevel.wait_readable(fd)
            opened = os.read(fd, 1) != b""
            os.unlink(gate)
            return opened
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
    return False


async def _look_again(core: Core) -> None:
    """After a failed start, ask the runtime for the container's state."""
    if core.state is not State.STARTING:
        return
    told = None
    with contextlib.suppress(SupervisorError, OSError):
        # Without an answer the container counts as created: the next start finds out.
        told = await core.runtime.status()
    if told == "created" and await core.init.gate.has_begun(_GATE_SECONDS):
        told = "running"  # a start that was killed between two steps has opened the gate already
    if told == "stopped" or told is None:
        with within(core.shared.deadlines.shim):
            await core.init.wait()
    if told in STARTED:  # also "paused": a pause of the user's own doesn't undo the start
        _started(core)
    elif core.state is State.STARTING:
        core.apply(Event.START_FAILED)


def _started(core: Core) -> None:
    if core.state not in (State.STARTING, State.STOPPED):
        return  # the container was deleted meanwhile
    core.shared.observers.notify(Point.START_RETURNED)
    core.mark_started()
    core.shared.observers.notify(Point.STARTED)
    if core.state is State.STARTING:
        core.apply(Event.STARTED)


def _raise_if_taken_away(core: Core, failure: Failure | None) -> None:
    """Raise IllegalTransition for a container that was deleted, or killed before its start."""
    gone = core.state in (State.DELETING, State.DELETED, State.BROKEN)
    if gone or (core.state is State.STOPPED and core.init.end.killed_waiting):
        try:
            core.check(Event.START)
        except IllegalTransition as error:
            raise error from failure


def _raise_if_lost(core: Core) -> None:
    """Raise ShimExited if init ended unseen by the shim before the start."""
    status = core.init.status
    if status is None or status.source is Source.SHIM or core.was_started():
        return
    raise ShimExited(
        f"the shim ended before the start ({status}); delete the container and create it again",
        container=core.record.id,
    )
