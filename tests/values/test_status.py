"""Exit statuses: values with their provenance."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import Cause, ExitStatus, Source


@given(st.integers(0, 255))
def test_code_as_int(code: int) -> None:
    """An exit code is unchanged in the shell's convention."""
    assert int(ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=code)) == code


@given(st.integers(1, 64))
def test_signal_as_int(number: int) -> None:
    """A signal is 128 + N in the shell's convention, and has a name where Python knows one."""
    status = ExitStatus(cause=Cause.SIGNALLED, source=Source.SHIM, signal=number)
    assert int(status) == 128 + number
    if number in set(signal.Signals):
        assert status.signal is signal.Signals(number)


def test_unknown_as_int() -> None:
    """An unknown end is 255, and says why."""
    status = ExitStatus(cause=Cause.UNKNOWN, source=Source.INFERENCE, why="shim lost")
    assert (int(status), str(status), status.at) == (255, "unknown: shim lost", None)


def test_time() -> None:
    """The time of the end is an aware datetime in UTC."""
    status = ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=0, at_ns=1_500_000_000)
    assert status.at == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {"cause": Cause.EXITED},
        {"cause": Cause.EXITED, "code": 256},
        {"cause": Cause.EXITED, "signal": 9},
        {"cause": Cause.EXITED, "code": 1, "signal": 9},
        {"cause": Cause.SIGNALLED, "code": 1},
        {"cause": Cause.SIGNALLED, "signal": 65},
        {"cause": Cause.UNKNOWN},
        {"cause": Cause.UNKNOWN, "code": 1, "why": "?"},
        {"cause": Cause.EXITED, "code": 1, "why": "?"},
    ],
)
def test_nothing_made_up(fields: dict[str, object]) -> None:
    """A status with a contradiction can't be made."""
    with pytest.raises(ValueError, match=r"an? (known|unknown) end|cause|an exit code|a signal"):
        ExitStatus(source=Source.SHIM, **fields)  # type: ignore[arg-type]
