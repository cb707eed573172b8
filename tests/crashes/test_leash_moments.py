"""The leash, at every moment: what a killed program leaves is gone within a second.

Two sweeps over each operation. The first kills the program after so many microseconds, whatever the
runtime and the shims are doing then. The second kills the program before the n-th thing that Python
does to a file or a process, so that two steps of ours that follow at once are distinguished too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.conftest import MakeBundle
from tests.crashes.plays import OPERATIONS
from tests.support import leaks
from tests.support.containers import cgroups_of, end, left, living
from tests.support.forker import PATIENCE_SECONDS, Forker, Program
from tests.support.runtimes import Choice

LIMIT_SECONDS = 1.0
"""Until nothing is left, each time. A clean-up that takes longer is watched to the end, and
reported then."""

MOMENTS = 3
"""How many moments of an operation are tried ordinarily, with a runtime and a kind of leash."""

STEPS = 10
"""The same for steps: a part of the operations that have more."""

KINDS = ("ephemeral", "leash=True")


@attrs.frozen(kw_only=True)
class Scene:
    """Where programs are killed, and what they leave is looked for.

    Attributes:
        forker: makes them.
        workdir: their temporary files, and the durable root.
        told: what each of them is told.
        took: for how many seconds something was left, each time.
        forked: pids of children that they have forked and that live on.
        before: the processes that were there before.
    """

    forker: Forker
    workdir: Path
    told: dict[str, Any]
    took: list[float]
    forked: set[int] = attrs.field(factory=set)
    before: set[int] = attrs.field(factory=lambda: living(os.getpid()))

    def program(self, **told: Any) -> contextlib.AbstractContextManager[Program]:
        """Run a program that is told this too."""
        told = {**self.told, **told}
        return self.forker.program("tests.crashes.plays:leashed", told, temporary=self.workdir)

    def measure(self) -> tuple[int, float]:
        """Return how many steps the operation has, and how many seconds the operation takes."""
        with self.program() as program:
            done = program.await_entry("done")
            begun = program.await_entry("begins")
        self.assert_nothing_left("at its end")
        return done["steps"], (done["ns"] - begun["ns"]) / 1e9

    def kill_before(self, step: int) -> None:
        """Have a program die before a step of its operation."""
        with self.program(step=step) as program:
            leaks.wait_for(lambda: not program.alive() or program.said("done") is not None, "it")
        self.assert_nothing_left(f"before step {step}")

    def kill_after(self, seconds: float, *, fork: bool) -> None:
        """Kill a program so many seconds after the beginning of its operation."""
        with self.program(fork=fork) as program:
            begun = program.await_entry("begins")
            while time.monotonic_ns() < begun["ns"] + seconds * 1e9:
                pass
            program.stop()
            self._note_forked(program)
        try:
            self.assert_nothing_left(f"after {seconds * 1e3:.3f} ms" + " with a fork" * fork)
        finally:
            end(*self.forked)
            self.forked.clear()

    def assert_nothing_left(self, when: str) -> None:
        """Fail if a part of a killed program's containers is still there after the allowed time."""
        begun = time.monotonic()
        while left := self._left():
            assert time.monotonic() < begun + PATIENCE_SECONDS, f"killed {when}, it left {left}"
            time.sleep(0.002)
        self.took.append(time.monotonic() - begun)

    def _note_forked(self, program: Program) -> None:
        """Note the child that a stopped program has forked, even if the program hasn't noted the
        pid yet."""
        told = program.said("forked")
        if told is not None:
            assert os.path.exists(f"/proc/{told['pid']}")
            self.forked.add(told["pid"])
        elif program.said("forking") is not None:  # the other children run programs of their own
            itself = leaks.command(program.pid)
            children = leaks.descendants(program.pid)
            self.forked.update(pid for pid, command in children.items() if command == itself)

    def _left(self) -> list[str]:
        lines = leaks.descendants(os.getpid())
        for pid in set(lines) - self.before - self.forked:
            with contextlib.suppress(ChildProcessError):  # we reap what is left to us
                os.waitpid(pid, os.WNOHANG)
        processes = set(leaks.descendants(os.getpid())) - self.before - self.forked
        return [
            *(f"process {pid}: {lines.get(pid)}" for pid in processes),
            *cgroups_of(self.told["cgroup_parent"]),
            *_mounts(self.workdir),
            *(str(path) for path in self.workdir.glob("trio-supervisor-*")),
            *left(self.workdir / "root"),
        ]


def _mounts(below: Path) -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if f" {below}/" in line]


@pytest.fixture(scope="module")
def took() -> Iterator[list[float]]:
    """Check how long all tests together took: no longer than allowed."""
    seconds: list[float] = []
    yield seconds
    print(f"nothing was left after {max(seconds, default=0):.3f} s at most")
    assert all(one < LIMIT_SECONDS for one in seconds), sorted(seconds)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether to search ten times as far."""
    return bool(request.config.getoption("--long", default=False))


@pytest.fixture(params=KINDS)
def scene(
    request: pytest.FixtureRequest,
    choice: Choice,
    cgroup_parent: str,
    workdir: Path,
    bundle: MakeBundle,
    forker: Forker,
    took: list[float],
    operation: str,
) -> Scene:
    """A program that does one operation on a leash, again and again."""
    runtime = choice.runtime()
    told = {
        "runtime": [runtime.path, *runtime.args],
        "root": None if request.param == "ephemeral" else str(workdir / "root"),
        "cgroup_parent": cgroup_parent,
        "bundle": bundle("sleep", "600").path,
        "operation": operation,
    }
    return Scene(forker=forker, workdir=workdir, told=told, took=took)


@pytest.mark.runtimes("crun", "fake")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_a_moment(scene: Scene, long: bool) -> None:
    """Killed at any moment of an operation, with or without a forked child that lives on, the
    program leaves nothing."""
    _, seconds = scene.measure()
    moments = MOMENTS * (10 if long else 1)
    for moment in range(moments):
        scene.kill_after(seconds * moment / (moments - 1), fork=moment % 2 == 0)


@pytest.mark.runtimes("crun")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_before_a_step(scene: Scene, long: bool) -> None:
    """A program that is killed before any step that Python takes in an operation leaves nothing.

    So the keeper makes the ephemeral root, a container has a ``cleanup`` file before it has its
    name, and the keeper removes directories with temporary names.
    """
    steps, _ = scene.measure()
    stride = 1 if long else max(1, steps // STEPS)
    for step in range(0, steps, stride):
        scene.kill_before(step)


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize("operation", ["start"])
def test_killed_while_the_runtime_hangs(scene: Scene, choice: Choice) -> None:
    """A runtime call that would never end goes with the program: what the call waits for has gone
    already."""
    runtime = choice.runtime("hang-start")
    with scene.program(runtime=[runtime.path, *runtime.args]) as program:

        def calls() -> list[str]:
            lines = leaks.descendants(program.pid).values()
            return [line for line in lines if line.endswith(" start a")]

        leaks.wait_for(lambda: bool(calls()), "its start")
    scene.assert_nothing_left("in a start that hangs")
