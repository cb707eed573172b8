"""Strategies: operations on containers, and sequences of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from ...values import (
    IllegalTransition,
    State,
)
from ..machine import VERBS, Operation


def operations(*, containers: Sequence[str] = ("a", "b", "c")) -> st.SearchStrategy[Operation]:
    """Return single operations, on any of the containers."""
    chosen = st.sampled_from(list(containers))
    others = st.builds(
        Operation, st.sampled_from([verb for verb in VERBS if verb != "signal"]), chosen
    )
    return others | st.builds(Operation, st.just("signal"), chosen, st.sampled_from([15, 9]))


def sequences_of_operations(
    *, containers: Sequence[str] = ("a", "b", "c"), max_size: int = 12, legal: bool = True
) -> st.SearchStrategy[list[Operation]]:
    """Return lists of operations, to perform one after the other.

    Args:
        containers: the ids of the containers.
        max_size: how many operations there may be.
        legal: True: each operation is allowed when its turn comes. False: many will be refused.
    """
    if not legal:
        return st.lists(operations(containers=containers), max_size=max_size)
    choices = st.tuples(
        st.sampled_from(list(containers)), st.integers(0, 11), st.sampled_from([15, 9])
    )
    return st.lists(choices, max_size=max_size).map(_legal)


def _legal(choices: list[tuple[str, int, int]]) -> list[Operation]:
    """Return an operation for each choice: the number picks one of the allowed operations."""
    states: dict[str, State | None] = {}
    done: list[Operation] = []
    for container, number, what in choices:
        state = states.get(container)
        possible = list(_possible(container, state, what))
        operation, states[container] = possible[number % len(possible)]
        done.append(operation)
    return done


def _possible(
    container: str, state: State | None, what: int
) -> Iterator[tuple[Operation, State | None]]:
    for verb in VERBS:
        operation = Operation(verb, container, what if verb == "signal" else None)
        with contextlib.suppress(IllegalTransition):
            yield operation, operation.after(state)
