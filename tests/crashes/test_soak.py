"""A short soak; scripts/soak runs long ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crashes import soak
from tests.support.runtimes import Choice

_HERE = Path(soak.__file__).parent.parent.parent

pytestmark = [
    pytest.mark.runtimes("crun"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the cgroups of its containers"),
]


def _soak(*arguments: str) -> str:
    command = [sys.executable, "-m", soak.__name__, *arguments]
    done = subprocess.run(command, cwd=_HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_random(request: pytest.FixtureRequest, choice: Choice) -> None:
    """Lifecycles, execs, streams and faults at random leave nothing, and every status is true."""
    long = request.config.getoption("--long")
    said = _soak("1" if long else "0.1", "--runtime", choice.name, *([] if long else ["--seed=1"]))
    assert "exact statuses" in said and "wrong" not in said


def test_count(request: pytest.FixtureRequest, choice: Choice) -> None:
    """So many containers that run ``true`` have as many exact statuses, and leave nothing."""
    count = 1000 if request.config.getoption("--long") else 100
    for at_once in ("1", "8"):
        said = _soak("--count", str(count), "--at-once", at_once, "--runtime", choice.name)
        assert f"exact statuses: {count}\n" in said
        assert f"{count} exact exit statuses, nothing left\n" in said
