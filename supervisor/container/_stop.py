"""Stop a container, and kill a container."""

from __future__ import annotations

import contextlib
import enum
import math
import os
import signal
import time
from functools import partial
from typing import Final

import attrs
import trio

from ..cgroups import Steps, finish
from ..observers import Point
from ..process import ask, process_of
from ..spec import SignalArgument, check_stop_signal, is_grace
from ..state import MAX_NS, Asked, Intent, write_asked
from ..tasks import granted, nap, shielded, within
from ..values import (
    DeadlineExpired,
    Event,
    ExitStatus,
    InvalidValue,
    ProcessEnded,
    ShimError,
    State,
)
from ._core import Core

STOP_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.005


class Own(enum.Enum):
    """What stands for a container's own stop signal."""

    OWN = "its own"


OWN: Final = Own.OWN


@attrs.frozen
class Stopped:
    """What `Container.stop` did.

    Attributes:
        status: how the container's init ended.
        escalated: whether init was killed: by this call, another call, another supervisor or
            another program. False if init had ended before.
    """

    status: ExitStatus
    escalated: bool


def own_signal(core: Core) -> int:
    """Return the signal that asks a container to end, if the caller gives none."""
    return core.record.stop_signal or signal.SIGTERM


def own_grace(core: Core) -> float:
    """Return how many seconds a container has to end, if the caller gives no number."""
    grace_ns = core.record.stop_grace_ns
    if grace_ns is None:
        return STOP_GRACE_SECONDS
    return math.inf if grace_ns >= MAX_NS else grace_ns / 1e9


async def stop(core: Core, grace: float | None, ask_with: SignalArgument | Own) -> Stopped:
    """Ask, wait, kill; see `Container.stop`."""
    seconds = own_grace(core) if grace is None else grace
    number = own_signal(core)
    if ask_with is not OWN:
        number = check_stop_signal(ask_with, "ask_with", container=core.record.id)
    if not is_grace(seconds):
        raise InvalidValue(
            f"the grace must be 0 seconds or more, not {grace!r:.100}", container=core.record.id
        )
    with core.operating():
        return await _stop(core, seconds, number)


async def finish_stop(core: Core, asked: Asked | None) -> Stopped:
    """Finish a stop whose caller was killed, in the time that is left.

    ``asked`` is None for a stop that isn't recorded: then the container's own wish counts.
    """
    if asked is None:
        return await stop(core, None, OWN)
    left = math.inf if asked.until_ns >= MAX_NS else (asked.until_ns - _now_ns()) / 1e9
    with core.operating():
        return await _stop(core, max(0.0, left), asked.signal, sent=asked.sent)


async def _stop(core: Core, grace: float, number: int, *, sent: bool = False) -> Stopped:
    core.see()
    core.apply(Event.STOP)
    if core.init.status is None:
        stopped = await _ask_and_kill(core, grace, number, sent)
    else:
        stopped = Stopped(await core.init.wait(), escalated=False)
    await _end_rest(core)
    return stopped


async def _ask_and_kill(core: Core, grace: float, number: int, sent: bool) -> Stopped:
    core.stops += 1
    asked = _note_stop(core, grace, number)
    core.shared.observers.notify(Point.STOP_INTENDED)
    try:
        if core.refresh() is State.STOPPING:  # one that wasn't started has nothing to be asked
            await _thaw(core)
            with granted(grace), contextlib.suppress(ProcessEnded):
                if sent:
                    status = await core.init.wait()
                else:
                    told = partial(_note_sent, core, asked)
                    status = await ask(process_of(core.init), number, sent=told)
                return Stopped(status, number != signal.SIGKILL and _was_killed(status))
        return await end(core)
    except BaseException:
        if core.stops == 1:  # else another task stops the container, too
            _give_up_stop(core)
        raise
    finally:
        core.stops -= 1


def _was_killed(status: ExitStatus) -> bool:
    """Whether a process was killed, and not by the kernel for want of memory."""
    return status.signal == signal.SIGKILL and not status.oom_killed


def _note_stop(core: Core, grace: float, number: int) -> Asked:
    """Record the signal of a stop, and until when the container has time, for other supervisors.

    Of two stops the one that ends first counts. A full disk must not prevent a stop.
    """
    now_ns = _now_ns()
    asked = Asked(number, now_ns, int(min(now_ns + grace * 1e9, MAX_NS)))
    with contextlib.suppress(OSError):
        core.intend(Intent.STOP)
        other = core.asked()
        if core.stands() and (other is None or asked.until_ns < other.until_ns):
            write_asked(core.layout.init.stopping, asked)
            core.noted = asked
    return asked


def _note_sent(core: Core, asked: Asked) -> None:
    with contextlib.suppress(OSError):
        if core.noted == asked and core.stands() and core.asked() == asked:
            core.noted = attrs.evolve(asked, sent=True)
            write_asked(core.layout.init.stopping, core.noted)


def _give_up_stop(core: Core) -> None:
    """Take the record of a stop back: the container goes on."""
    with contextlib.suppress(OSError):
        if core.record.intent is Intent.STOP:
            core.intend(None)
        if core.noted is not None and core.stands() and core.asked() == core.noted:
            os.unlink(core.layout.init.stopping)
    if core.refresh() is State.STOPPING:
        core.apply(Event.STOP_GIVEN_UP)


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def _end_rest(core: Core) -> None:
    """Kill what init has left behind: without a pid namespace the kernel doesn't."""
    cgroup = core.record.cgroup
    if cgroup is None or core.refresh() is not State.STOPPED:
        return
    hierarchies = core.shared.hierarchies
    with within(core.shared.deadlines.kill):
        while await hierarchies.list_members(cgroup) and core.stands():
            await hierarchies.kill(cgroup, core.stands)
            await nap(_POLL_SECONDS)


async def _thaw(core: Core) -> None:
    """Thaw a frozen container, which can then react to the signal."""
    if core.record.cgroup is not None:
        await core.shared.hierarchies.thaw(core.record.cgroup, core.stands)


def kill(core: Core) -> None:
    """SIGKILL the init, and everything else in the cgroup, thawed.

    Of very many processes the rest is killed by a task of the supervisor's, so that other tasks
    don't wait.
    """
    core.shared.opener.require(core.record.id)
    if core.refresh() is State.DELETED:
        raise ProcessEnded("it was deleted", container=core.record.id)
    if core.record.cgroup is not None and core.stands():
        look_for_wards(core, core.record.cgroup)
    try:
        core.init.send_signal(signal.SIGKILL)
    finally:
        if core.record.cgroup is not None:
            for process in core.execs.values():
                process.end.note_killed()
            _kill_cgroup(core, core.record.cgroup)
        core.shared.observers.notify(Point.KILLED)


def look_for_wards(core: Core, cgroup: str) -> None:
    """Take note of those in a cgroup that were left to us, before they are killed."""
    shared = core.shared
    shared.wards.look(core.layout.path, partial(shared.hierarchies.members, cgroup))


def _kill_cgroup(core: Core, cgroup: str) -> None:
    rest = core.shared.hierarchies.begin_kill(cgroup, core.stands)
    if rest is not None and not core.shared.life.closed:
        core.nursery.start_soon(_kill_rest, core, rest, name=f"{core.init.task_name}: kill")
    elif rest is not None:  # there is no task any more that could
        finish(rest)


@trio.lowlevel.enable_ki_protection
async def _kill_rest(core: Core, rest: Steps[None]) -> None:
    """Kill what is left of a cgroup, also while the supervisor is being closed."""
    with shielded(core.shared.deadlines.kill):
        await core.shared.hierarchies.carry_out(rest)


async def end(core: Core) -> Stopped:
    """Kill everything in a container, and return the exit status of init, also of an ended one.

    Raises:
        DeadlineExpired: init is still there ``deadlines.kill`` after SIGKILL.
    """
    seconds = core.shared.deadlines.kill
    lived = True
    with contextlib.suppress(OSError):  # without a descriptor to look
        lived = not core.init.end.is_near()
    try:
        kill(core)
    except ProcessEnded:
        lived = False
    except ShimError:  # the shim can't be reached; but all in the cgroup was killed
        if core.record.cgroup is None:
            raise
    with within(seconds):
        status = await core.init.wait()
        return Stopped(status, escalated=lived or _was_killed(status))
    raise DeadlineExpired(
        f"the init didn't end within {seconds:g} seconds after SIGKILL: the init may be frozen, or "
        "stuck in the kernel",
        seconds=seconds,
        container=core.record.id,
    )
