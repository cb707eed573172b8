"""The life of a process: states, events and the one table of transitions.

Nothing here knows Trio, a clock or the disk. An event that isn't in the table for a state raises
`IllegalTransition` and changes nothing.
"""

from __future__ import annotations

import enum
from typing import Final

from ._errors import IllegalTransition


class ProcessState(enum.Enum):
    """The state of a process, as known to the supervisor that watches the process.

    LAUNCHING: the shim hasn't reported the process. RUNNING: the shim has, or the process was
    adopted. ENDED: the exit status is known. GONE: the shim has ended as well. FORGOTTEN: the task
    of an exec is done, and the exec's directory is removed. LEFT: no task watches any more, because
    the launch failed or the supervisor dropped the process; the exit status may be known or not.
    """

    LAUNCHING = "launching"
    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"
    FORGOTTEN = "forgotten"
    LEFT = "left"


class ProcessEvent(enum.Enum):
    """What happens to a process, or to the process's task."""

    MADE = "made"
    LAUNCH_FAILED = "launch failed"
    SETTLED = "settled"
    SHIM_GONE = "shim gone"
    FORGET = "forget"
    LEAVE = "leave"


_S, _E = ProcessState, ProcessEvent

PROCESS_TRANSITIONS: Final[dict[ProcessState, dict[ProcessEvent, ProcessState]]] = {
    _S.LAUNCHING: {
        _E.MADE: _S.RUNNING,
        _E.LAUNCH_FAILED: _S.LEFT,
        _E.LEAVE: _S.LEFT,
    },
    _S.RUNNING: {
        _E.SETTLED: _S.ENDED,
        _E.LEAVE: _S.LEFT,
    },
    _S.ENDED: {
        _E.SETTLED: _S.ENDED,  # anew, by the supervisor that takes over a foreign one
        _E.SHIM_GONE: _S.GONE,
        _E.LEAVE: _S.LEFT,
    },
    _S.GONE: {
        _E.SETTLED: _S.GONE,
        _E.FORGET: _S.FORGOTTEN,
        _E.LEAVE: _S.LEFT,
    },
    _S.FORGOTTEN: {
        _E.SETTLED: _S.FORGOTTEN,
        _E.LEAVE: _S.FORGOTTEN,
    },
    _S.LEFT: {
        _E.MADE: _S.LEFT,
        _E.LAUNCH_FAILED: _S.LEFT,
        _E.SETTLED: _S.LEFT,
        _E.SHIM_GONE: _S.LEFT,
        _E.FORGET: _S.LEFT,
        _E.LEAVE: _S.LEFT,
    },
}


def next_process_state(state: ProcessState, event: ProcessEvent, *, name: str) -> ProcessState:
    """Return the state that ``event`` leads to from ``state``.

    Args:
        state: the state of the process.
        event: what has happened.
        name: ``container/process``, for the error.

    Raises:
        IllegalTransition: the table has no such event for this state.
    """
    following = PROCESS_TRANSITIONS[state].get(event)
    if following is None:
        message = f"cannot be: {event.value} of process {name}, which is {state.value}"
        container = name.partition("/")[0]
        raise IllegalTransition(message, state=state.value, event=event.value, container=container)
    return following
