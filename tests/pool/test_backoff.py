"""Waits that grow with each failure in a row."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import Backoff, InvalidValue

backoffs = st.builds(
    lambda first, factor, more: Backoff(first=first, factor=factor, longest=first + more),
    st.floats(0.001, 100),
    st.floats(1, 1e6),
    st.floats(0, 1000),
)


@given(backoffs, st.integers(1, 10**6))
def test_waits_grow_up_to_the_longest(backoff: Backoff, failures: int) -> None:
    """The waits grow to the longest: never shorter than the one before, however many there are."""
    seconds = backoff.seconds(failures)
    assert backoff.first <= seconds <= backoff.longest
    assert seconds <= backoff.seconds(failures + 1)
    assert backoff.seconds(1) == backoff.first


def test_the_default_waits() -> None:
    """The default waits are a tenth of a second, doubled each time, 5 seconds at the most; none
    without a failure."""
    assert [Backoff().seconds(n) for n in range(8)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5]


@pytest.mark.parametrize(
    "values",
    [
        {"first": 0},
        {"first": -1},
        {"first": math.nan},
        {"first": "1"},
        {"factor": 0.9},
        {"factor": math.inf},
        {"longest": 0.05},
        {"longest": math.inf},
    ],
)
def test_waits_that_cannot_be(values: dict[str, float]) -> None:
    """Impossible waits are refused when the value is made."""
    with pytest.raises(InvalidValue, match=next(iter(values))):
        Backoff(**values)
