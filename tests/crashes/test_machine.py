"""Supervisors do what a plain model says, whatever happens to them, their shims and files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.crashes.ground import Ground
from tests.crashes.troubles import Troubled
from tests.support.runtimes import Choice

PLAYS = {"fake": 6, "crun": 3}
STEPS = 50


@pytest.mark.runtimes("fake", "crun")
@pytest.mark.timeout(3600)
def test_model(request: pytest.FixtureRequest, choice: Choice, setting: Ground) -> None:
    """After every step of plays of fifty, all supervisors show what the model says.

    A failure is reported as steps that can be pasted, and as a `reproduce_failure`. The
    ordinary search is the same each time; ``--long`` begins elsewhere, and says where.
    """
    long = request.config.getoption("--long")
    search = settings(
        max_examples=PLAYS[choice.name] * (20 if long else 1),
        stateful_step_count=STEPS,
        derandomize=not long,
        print_blob=True,
        report_multiple_bugs=False,
        deadline=None,  # a busy machine is no bug
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    factory: Any = lambda: Troubled(setting)  # noqa: E731  (it need not be a class)
    run_state_machine_as_test(factory, settings=search)
