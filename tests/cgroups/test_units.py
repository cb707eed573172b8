"""A service manager kills a program's whole cgroup: containers end, or live on, as configured."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import State
from supervisor.cgroups import Hierarchies
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import cgroups_of
from tests.support.leaks import STRANGERS, descendants, wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("runc", "crun")

PROGRAM = """
import os, sys, trio
from supervisor import open_supervisor

async def main(runtime, parent, bundle, root, *ways):
    for way in ways:
        with open(way, "w") as file:
            file.write(str(os.getpid()))
    async with open_supervisor(root or None, runtime=runtime, cgroup_parent=parent) as sup:
        box = await sup.create("web", bundle)
        await box.start()
        await box.exec(["sleep", "600"])
        print(box.pid, sup.root, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


class Unit:
    """A program in cgroups of its own, as a service manager starts it.

    Attributes:
        container: the pid of the container's init.
        root: the program's root.
    """

    def __init__(self, groups: list[Path], *arguments: str) -> None:
        self._groups = groups
        ways = [str(group / "cgroup.procs") for group in groups]
        self._program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments, *ways],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert self._program.stdout is not None
        pid, _, root = self._program.stdout.readline().partition(" ")
        self.container, self.root = int(pid), Path(root.strip())
        STRANGERS.update(descendants(self._program.pid))

    def members(self) -> set[int]:
        """Return the processes in the unit's cgroups."""
        return {
            int(pid)
            for group in self._groups
            for pid in (group / "cgroup.procs").read_text().split()
        }

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the unit, all at once."""
        members = self.members()
        for each in (signal.SIGSTOP, number, signal.SIGCONT):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, each)

    def kill(self) -> None:
        """SIGKILL all processes of the unit, twice, as systemd does."""
        self.signal(signal.SIGKILL)
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        self._program.wait(20)
        assert self._program.stdout is not None
        self._program.stdout.close()


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """A unit's cgroups, in every hierarchy."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    name = f"/ts-unit-{os.getpid()}-{secrets.token_hex(4)}"
    made = [Path(path) for path in hierarchies.directories(name) if "/cpuset/" not in path]
    for path in made:
        path.mkdir()
    yield made
    for path in made:
        path.rmdir()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_ephemeral_supervisor_leaves_nothing(
    choice: Choice, cgroup_parent: str, bundle: MakeBundle, groups: list[Path]
) -> None:
    """The keeper of an ephemeral supervisor outlives the unit and removes everything: once it was
    killed with the unit, and the container ran on, never to be found again."""
    unit = Unit(groups, choice.name, cgroup_parent, bundle("sleep", "600").path, "")
    unit.kill()
    wait_for(lambda: not alive(unit.container), "the container's end")
    wait_for(lambda: not unit.root.exists(), "the root's end")
    wait_for(lambda: cgroups_of(cgroup_parent) == [], "the end of its cgroups")
    apart = Hierarchies.discover()
    wait_for(lambda: apart.remains(f"{cgroup_parent}.shims") == [], "the end of the keeper's")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_durable_ones_containers_live_on(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    bundle: MakeBundle,
    root: Path,
    groups: list[Path],
    number: int,
) -> None:
    """A durable supervisor's containers live on after a restart by a service manager: once their
    shims got the signal and passed it on, and the containers ended with 143. The next open adopts
    them, with their exact exit statuses."""
    script = "trap 'exit 7' USR1; trap 'exit 8' TERM; while :; do sleep 0.05; done"
    path = bundle("sh", "-c", script).path
    unit = Unit(groups, choice.name, cgroup_parent, path, str(root))
    if number == signal.SIGKILL:
        unit.kill()
    else:
        unit.signal(number)
        unit.wait()
    assert alive(unit.container)
    async with supervisor(root) as sup:
        box = sup["web"]
        assert (box.state, box.pid) == (State.RUNNING, unit.container)
        box.send_signal(signal.SIGUSR1)
        assert (await box.wait()).code == 7
        await box.delete()
