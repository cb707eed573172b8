"""A container that fails is data: the supervisor, and the other containers, go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from supervisor import (
    CleanupIncomplete,
    Container,
    CreateTimeout,
    RuntimeFailed,
    RuntimeTimeout,
    ShimExited,
    State,
    Supervisor,
    SupervisorError,
)
from supervisor.testing.runtimes import HostRuntime
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import SOON, hurried, shim_of
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

HURRY = {
    "hang-create-after-pid": {"create": SOON},
    "hang-start": {"start": SOON},
    "hang-exec-before-pid": {"create": SOON},
    "hang-delete": {"call": SOON / 2},
}
"""The deadline that ends what hangs."""

Ruin = Callable[[Container], Awaitable[object]]


async def _start(box: Container) -> None:
    await box.start()


async def _exec(box: Container) -> None:
    await box.start()
    await box.exec(["true"])


async def _delete(box: Container) -> None:
    await box.delete()


async def _start_without_shim(box: Container) -> None:
    os.kill(_shim(box), signal.SIGKILL)
    await box.start()


def _shim(box: Container) -> int:
    return shim_of(Path(box._core.layout.init.path))


@pytest.mark.parametrize(
    ("fault", "ruin", "error"),
    [
        ("fail-create", None, RuntimeFailed),
        ("hang-create-after-pid", None, CreateTimeout),
        ("no-pid", None, RuntimeFailed),
        ("die-create", None, RuntimeFailed),
        ("fail-start", _start, RuntimeFailed),
        ("hang-start", _start, RuntimeTimeout),
        ("", _start_without_shim, ShimExited),
        ("fail-exec-after-pid", _exec, RuntimeFailed),
        ("hang-exec-before-pid", _exec, CreateTimeout),
        ("fail-delete", _delete, CleanupIncomplete),
        ("hang-delete", _delete, CleanupIncomplete),
    ],
)
async def test_neighbours(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    fault: str,
    ruin: Ruin | None,
    error: type[SupervisorError],
    nothing_left: NothingLeft,
) -> None:
    """Whatever goes wrong with one container, its error goes to the caller, and the neighbour lives
    on."""
    async with supervisor(root) as sup:
        neighbour = await sup.create("good", bundle("sh", "-c", "read x; exit 5"), stdin=-1)
        await neighbour.start()
        await _ruin_one(sup, bundle, choice, fault, ruin, error)
        assert neighbour.state is State.RUNNING
        job = await neighbour.exec(["true"])
        assert (await job.wait()).code == 0
        assert neighbour.stdin is not None
        await neighbour.stdin.aclose()
        assert (await neighbour.wait()).code == 5
        await neighbour.delete()
        third = await sup.create("third", bundle("true"))
        await third.start()
        await third.delete(force=True)
    _repair(root)
    async with supervisor(root) as sup:
        for box in sup.values():
            await box.delete(force=True)
        await nothing_left()


async def _ruin_one(
    sup: Supervisor,
    bundle: MakeBundle,
    choice: Choice,
    fault: str,
    ruin: Ruin | None,
    error: type[SupervisorError],
) -> None:
    good, sup.runtime = sup.runtime, choice.runtime(*filter(None, [fault]))
    seconds = HURRY.get(fault, {})
    with pytest.raises(error):
        with hurried(sup, **({} if ruin else seconds)):
            box = await sup.create("bad", bundle("sleep", "60"))
        assert ruin is not None
        with hurried(box, **seconds):
            await ruin(box)
    sup.runtime = good


def _repair(root: Path) -> None:
    """Remove the faults from what the containers' records say of their runtime."""
    for state in root.glob("*/state.json"):
        record = json.loads(state.read_text())
        record["runtimeArgs"] = list(HostRuntime().runtime.args)
        state.write_text(json.dumps(record))
