"""The lifecycle of a container: states, events and the one table of transitions.

Nothing here knows Trio, a clock or the disk. An event that isn't in the table for a state raises
`IllegalTransition` and changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, TypeVar

from ._errors import IllegalTransition

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


class State(enum.Enum):
    """The state of a container."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    DELETED = "deleted"
    BROKEN = "broken"


class Event(enum.Enum):
    """What happens to a container, or what a caller asks for."""

    CREATED = "created"
    RESTORED = "restored"
    START = "start"
    STARTED = "started"
    START_FAILED = "start failed"
    EXEC = "exec"
    CHECKPOINT = "checkpoint"
    STOP = "stop"
    STOP_GIVEN_UP = "stop given up"
    EXITED = "exited"
    DELETE = "delete"
    FORCE_DELETE = "delete by force"
    DELETED = "deleted"
    DELETE_FAILED = "delete failed"


_S, _E = State, Event

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.CREATING: {
        _E.CREATED: _S.CREATED,
        _E.RESTORED: _S.RUNNING,
        _E.EXITED: _S.STOPPED,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.CREATED: {
        _E.START: _S.STARTING,
        _E.STOP: _S.CREATED,
        _E.EXITED: _S.STOPPED,
        _E.DELETE: _S.DELETING,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.STARTING: {
        _E.STARTED: _S.RUNNING,
        _E.START_FAILED: _S.CREATED,
        _E.STOP: _S.STARTING,
        _E.EXITED: _S.STOPPED,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.RUNNING: {
        _E.EXEC: _S.RUNNING,
        _E.CHECKPOINT: _S.RUNNING,
        _E.STOP: _S.STOPPING,
        _E.EXITED: _S.STOPPED,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.STOPPING: {
        _E.EXEC: _S.STOPPING,
        _E.CHECKPOINT: _S.STOPPING,
        _E.STOP: _S.STOPPING,
        _E.STOP_GIVEN_UP: _S.RUNNING,
        _E.EXITED: _S.STOPPED,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.STOPPED: {
        _E.STOP: _S.STOPPED,
        _E.DELETE: _S.DELETING,
        _E.FORCE_DELETE: _S.DELETING,
    },
    State.DELETING: {
        _E.EXITED: _S.DELETING,
        _E.DELETED: _S.DELETED,
        _E.DELETE_FAILED: _S.BROKEN,
    },
    State.DELETED: {
        _E.STOP: _S.DELETED,
        _E.DELETE: _S.DELETED,
        _E.FORCE_DELETE: _S.DELETED,
    },
    State.BROKEN: {
        _E.EXITED: _S.BROKEN,
        _E.DELETE: _S.DELETING,
        _E.FORCE_DELETE: _S.DELETING,
    },
}

_ADVICE: Final[dict[tuple[State, Event], str]] = {
    (_S.CREATED, _E.EXEC): "start the container first",
    (_S.RUNNING, _E.START): "the container runs already",
    (_S.RUNNING, _E.DELETE): "stop the container first, or use delete(force=True)",
    (_S.STOPPING, _E.START): "a stop is under way",
    (_S.STOPPING, _E.DELETE): "wait until the container has stopped, or use delete(force=True)",
    (_S.STARTING, _E.DELETE): "stop the container first, or use delete(force=True)",
    (_S.STOPPED, _E.START): "the init has ended; delete the container and create a new one",
    (_S.STOPPED, _E.EXEC): "the init has ended",
}


def next_state(state: State, event: Event, *, container: str | None = None) -> State:
    """Return the state that ``event`` leads to from ``state``.

    Raises:
        IllegalTransition: the table has no such event for this state.
    """
    following = TRANSITIONS[state].get(event)
    if following is None:
        advice = _ADVICE.get((state, event))
        message = f"cannot {event.value} in state {state.value}" + (f": {advice}" if advice else "")
        raise IllegalTransition(message, state=state.value, event=event.value, container=container)
    return following


def diagram(
    table: Mapping[S, Mapping[E, S]],
) -> str:
    """Return a table as a Mermaid state diagram, for docs/architecture.md.

    The diagram begins at the table's first state. A state without an exit is an end.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table)).value}"]
    for state, events in table.items():
        for event, target in events.items():
            if target is not state:
                lines.append(f"    {state.value} --> {target.value}: {event.value}")
    lasting = [state for state, events in table.items() if {*events.values()} <= {state}]
    lines += [f"    {state.value} --> [*]" for state in lasting]
    return "\n".join(lines) + "\n"
