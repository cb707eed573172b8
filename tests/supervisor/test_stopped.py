"""A supervisor that is stopped for a while, for example by a debugger, then finds all in good
order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from tests.conftest import MakeBundle, NothingLeft
from tests.supervisor.stopping import SECONDS, lingering
from tests.support.containers import state_of, until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("runc", "crun")

TRAPS = "trap 'sleep 0.5; exit 7' TERM; while :; do sleep 0.05; done"
"""A program that ends after a while, within the grace."""


async def test_time_in_which_it_was_stopped_is_no_operations(
    choice: Choice,
    cgroup_parent: str,
    bundle: MakeBundle,
    workdir: Path,
    nothing_left: NothingLeft,
) -> None:
    """The time in which a supervisor was stopped counts for no deadline: after 31 seconds it once
    said CleanupIncomplete, CreateTimeout and DeadlineExpired of finished operations, and killed a
    program within its grace."""
    gate = lingering(choice, workdir / "runtime")
    told = {
        "runtime": str(workdir / "runtime"),
        "gate": str(gate),
        "cgroup_parent": cgroup_parent,
        "bundle": bundle("sh", "-c", TRAPS).path,
    }
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.supervisor.stopping", json.dumps(told)],
        cwd=Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        assert await trio.to_thread.run_sync(program.stdout.readline) == "under way\n"
        program.send_signal(signal.SIGSTOP)
        await until(lambda: state_of(program.pid) == "T", "it is stopped")
        stopped = time.monotonic()
        gate.unlink()
        await until(lambda: time.monotonic() > stopped + 2 * SECONDS, "its deadlines have passed")
    finally:
        os.kill(program.pid, signal.SIGCONT)
        said, _ = await trio.to_thread.run_sync(program.communicate)
    found = json.loads(said)
    assert found.pop("create").startswith("<supervisor.Container")
    assert found.pop("exec").startswith("<supervisor.Process")
    assert found == {"start": "None", "delete": "None", "stop": "(7, False)", "run": "0"}
    assert program.returncode == 0
    await nothing_left()
