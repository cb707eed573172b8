"""A program with a pool is killed: nothing of the pool is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import MakeBundle
from tests.support import leaks
from tests.support.leaks import STRANGERS, descendants, wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("runc", "crun")
ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys, trio
from supervisor import ContainerPool, open_supervisor

async def main(runtime, parent, bundle):
    async with open_supervisor(runtime=runtime, cgroup_parent=parent) as sup:
        async with ContainerPool(bundle, supervisor=sup, size=3) as pool:
            async with pool.take(["sleep", "600"]):
                await pool.wait_full()
                print(sup.root, flush=True)
                await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


def test_a_program_that_is_killed(
    bundle: MakeBundle, choice: Choice, cgroup_parent: str, workdir: Path
) -> None:
    """A program that is killed by SIGKILL, with some containers waiting and one taken, leaves
    nothing: shims and keeper clean up."""
    made = bundle("true")
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, choice.name, cgroup_parent, made.path],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert program.stdout is not None
    root = Path(program.stdout.readline().strip())
    assert root.is_dir() and root.parent == Path(tempfile.gettempdir())
    theirs = descendants(program.pid)
    assert len(theirs) >= 8  # shim and process of each; the keeper isn't our child
    STRANGERS.update(theirs)
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    wait_for(lambda: not root.exists(), "the end of its root")
    wait_for(lambda: not leaks.cgroup_left(cgroup_parent), "the end of its cgroups")
