"""The life of a process: its table, by itself."""

from __future__ import annotations

import itertools

import pytest

from supervisor import IllegalTransition
from supervisor.values._process_life import (
    PROCESS_TRANSITIONS,
    ProcessEvent,
    ProcessState,
    next_process_state,
)

KNOWN = [
    (state, event, target)
    for state, events in PROCESS_TRANSITIONS.items()
    for event, target in events.items()
]
UNKNOWN = [
    (state, event)
    for state, event in itertools.product(ProcessState, ProcessEvent)
    if event not in PROCESS_TRANSITIONS[state]
]


@pytest.mark.parametrize(("state", "event", "target"), KNOWN)
def test_an_event_of_the_table(
    state: ProcessState, event: ProcessEvent, target: ProcessState
) -> None:
    """It leads where the table says."""
    assert next_process_state(state, event, name="a/init") is target


@pytest.mark.parametrize(("state", "event"), UNKNOWN)
def test_an_event_that_the_table_does_not_have(state: ProcessState, event: ProcessEvent) -> None:
    """It raises, and the error says of which process, in which state, what has happened."""
    with pytest.raises(
        IllegalTransition, match=f"of process a/init, which is {state.value}"
    ) as told:
        next_process_state(state, event, name="a/init")
    assert (told.value.state, told.value.event) == (state.value, event.value)
    assert told.value.container == "a"


def test_nothing_leads_back() -> None:
    """A process never stands where it stood before, once it has left that state."""
    order = list(ProcessState)
    assert all(order.index(target) >= order.index(state) for state, _, target in KNOWN)


def test_a_task_can_always_end() -> None:
    """In each state the task may be dropped; then nothing but its own exit status is learnt."""
    assert all(ProcessEvent.LEAVE in events for events in PROCESS_TRANSITIONS.values())
    assert set(PROCESS_TRANSITIONS[ProcessState.LEFT].values()) == {ProcessState.LEFT}
