"""The public names: loaded when they are used, and all of them there."""

from __future__ import annotations

import subprocess
import sys

import supervisor


def test_an_import_loads_nothing_yet() -> None:
    """Whoever only imports the package, as a plugin of pytest does, doesn't wait for Trio."""
    code = "import sys, supervisor; print('trio' in sys.modules, supervisor.State.RUNNING.value)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "running"]


def test_names_are_listed() -> None:
    """``dir()`` and the stars of imports know all names, loaded or not."""
    assert set(supervisor.__all__) <= set(dir(supervisor))
    everything: dict[str, object] = {}
    exec("from supervisor import *", everything)
    assert set(supervisor.__all__) <= everything.keys()
