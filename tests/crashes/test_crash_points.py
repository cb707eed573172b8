"""A supervisor is killed between any two of its steps, and the next open finds the truth."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Cause, Container, State, Supervisor
from supervisor.observers import Point
from tests.conftest import MakeBundle, OpenSupervisor
from tests.crashes.crasher import SEVEN, SLEEP
from tests.support.containers import left
from tests.support.forker import Forker
from tests.support.leaks import STRANGERS, descendants
from tests.support.runtimes import Choice
from tests.support.victim import Victims

pytestmark = [pytest.mark.runtimes("crun"), pytest.mark.timeout(300)]

TOO_MANY = 60
OPERATIONS = ["create", "start", "run", "exec", "stop", "delete", "adopt"]
CALLED = {"run": "end", "adopt": "open"}
"""The operations that have another name in the text of a `Point`."""


def named(operation: str) -> set[str]:
    """Return the names of the points whose texts name the operation."""
    word = CALLED.get(operation, operation)
    return {point.name for point in Point if word in point.value.partition(":")[0].split(", ")}


def crash(forker: Forker, told: dict[str, Any], number: int) -> tuple[bool, list[str]]:
    """Run the program; return whether it killed itself, and the points that it had reached."""
    before = descendants(os.getpid()).keys()
    with forker.program("tests.crashes.crasher:main", {**told, "kill_at": number}) as program:
        code = program.wait(60)
        STRANGERS.update(descendants(os.getpid()).keys() - before)
        assert code in (0, -signal.SIGKILL), program.complaints
        return code != 0, program.output.split()


async def assert_true_state(sup: Supervisor, root: Path, operation: str, point: str) -> None:
    """Check what the next supervisor makes of the container, and that the container can be used."""
    assert not sup.broken, (point, sup.broken)
    if "a" not in sup:
        assert operation in ("create", "delete"), point
        assert left(root) == [], point
        return
    box = sup["a"]
    if operation == "run" and box.state is not State.CREATED:
        with trio.fail_after(20):
            assert (await box.wait()).code == 7, point
    elif operation in ("stop", "delete"):
        await assert_stopped(box, point)
    else:
        assert box.status is None, point
    if operation == "exec":
        await assert_exec(box, point)
    if box.state is State.CREATED:
        assert operation in ("create", "start", "run"), point
        await box.start()
    elif operation in ("create",):
        raise AssertionError(f"{point}: nobody has started it, and it is {box.state}")


async def assert_stopped(box: Container, point: str) -> None:
    """Check that a stop that was begun is finished, with a status that says what was killed."""
    with trio.fail_after(20):
        status = await box.wait()
    assert status.signal is signal.SIGKILL, (point, status)


async def assert_exec(box: Container, point: str) -> None:
    """Check that an exec has its true exit status, or was never made."""
    process = box.processes.get("e")
    if process is None:
        return
    with trio.fail_after(20):
        status = await process.wait()
    assert status.code == 7, (point, status)


@pytest.mark.parametrize("operation", OPERATIONS[:-1])
async def test_killed_at_each_point(
    choice: Choice,
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    forker: Forker,
    root: Path,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
) -> None:
    """Whatever step the killed supervisor was in, the container is there with its true state, or
    gone."""
    monkeypatch.setattr("supervisor.container._stop.STOP_GRACE_SECONDS", 0.3)
    runtime = choice.runtime()
    told = {
        "operation": operation,
        "runtime": [runtime.path, *runtime.args],
        "cgroup_parent": cgroup_parent,
        "root": str(root),
        "bundle": bundle("true").path,
    }
    for number in range(1, TOO_MANY):
        killed, points = await trio.to_thread.run_sync(crash, forker, told, number)
        async with supervisor(root) as sup:
            if killed:
                await assert_true_state(sup, root, operation, points[-1])
            for id in sup:
                with trio.fail_after(30):
                    await sup[id].delete(force=True)
        assert left(root) == [], points
        if not killed:
            break
    assert 3 < number < TOO_MANY - 1
    assert named(operation) <= set(points), "a point is dead, or under another operation's name"


async def test_killed_while_it_adopts(
    choice: Choice,
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    forker: Forker,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """However far a killed adoption came, the next supervisor finds all containers unchanged."""
    runtime = choice.runtime()
    told = {
        "operation": "adopt",
        "runtime": [runtime.path, *runtime.args],
        "cgroup_parent": cgroup_parent,
        "root": str(root),
    }
    containers = {
        "made": bundle(*SLEEP).path,
        "run": bundle(*SLEEP).path,
        "over": bundle(*SEVEN).path,
    }
    what: dict[str, Any] = {"containers": containers, "started": ["run", "over"]}
    with victim(runtime, cgroup_parent, root, **what):
        pass
    for number in range(1, TOO_MANY):
        killed, points = await trio.to_thread.run_sync(crash, forker, told, number)
        async with supervisor(root) as sup:
            assert not sup.broken and set(sup) == set(containers), points
            assert sup["made"].state is State.CREATED, points
            assert sup["run"].state is State.RUNNING, points
            with trio.fail_after(20):
                status = await sup["over"].wait()
            assert (status.cause, status.code) == (Cause.EXITED, 7), points
        if not killed:
            break
    assert 3 < number < TOO_MANY - 1
    assert named("adopt") <= set(points), "a point is dead, or under another operation's name"
    async with supervisor(root) as sup:
        for id in sup:
            await sup[id].delete(force=True)
    assert left(root) == []


def test_each_point_has_its_operation() -> None:
    """Every point names operations that the tests above kill, and that reach the point."""
    assert set().union(*map(named, OPERATIONS)) == {point.name for point in Point}
