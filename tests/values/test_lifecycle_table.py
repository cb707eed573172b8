"""The transition table of the lifecycle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import IllegalTransition, State
from supervisor.values._lifecycle import TRANSITIONS, Event, diagram, next_state

EVERYTHING = [(state, event) for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), EVERYTHING)
def test_table_or_error(state: State, event: Event) -> None:
    """Every pair of state and event is either in the table or raises, naming both."""
    target = TRANSITIONS[state].get(event)
    if target is not None:
        assert next_state(state, event) is target
        return
    with pytest.raises(IllegalTransition) as caught:
        next_state(state, event, container="web-1")
    error = caught.value
    assert (error.state, error.event, error.container) == (state.value, event.value, "web-1")
    assert "web-1" in str(error) and state.value in str(error) and event.value in str(error)


def test_every_state_is_reached() -> None:
    """From creating, every state can be reached."""
    reached = {State.CREATING}
    while True:
        more = {target for state in reached for target in TRANSITIONS[state].values()} - reached
        if not more:
            break
        reached |= more
    assert reached == set(State)


def test_deleted_is_final() -> None:
    """Nothing leads out of deleted, and stop and delete may be repeated there."""
    assert set(TRANSITIONS[State.DELETED].values()) == {State.DELETED}
    assert {Event.STOP, Event.DELETE, Event.FORCE_DELETE} <= set(TRANSITIONS[State.DELETED])


@given(st.lists(st.sampled_from(Event)))
def test_user_events_never_strand(events: list[Event]) -> None:
    """Whatever happened, a container that exists can be deleted by force, or is being deleted."""
    state = State.CREATING
    for event in events:
        state = TRANSITIONS[state].get(event, state)
        assert state is State.DELETING or Event.FORCE_DELETE in TRANSITIONS[state]


def test_diagram_draws_the_table() -> None:
    """The diagram has one arrow for each transition that changes the state."""
    arrows = [
        line for line in diagram(TRANSITIONS).splitlines() if "-->" in line and "[*]" not in line
    ]
    changes = [
        (state, target)
        for state, events in TRANSITIONS.items()
        for target in events.values()
        if target is not state
    ]
    assert len(arrows) == len(changes)
