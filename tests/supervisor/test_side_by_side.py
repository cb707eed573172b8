"""The same id under two roots, and under two runtimes: neither notices the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervisor import Runtime, State, open_supervisor
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import choose

pytestmark = pytest.mark.rootless


@pytest.mark.runtimes("runc", "crun")
async def test_same_id_two_roots(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """Deleting a container by force leaves the one of the same id under another root alone."""
    spec = bundle("sleep", "600")
    async with supervisor(workdir / "one") as one, supervisor(workdir / "two") as two:
        first, second = await one.create("same", spec), await two.create("same", spec)
        await first.start()
        await second.start()
        await first.delete(force=True)
        assert (second.state, second.status) == (State.RUNNING, None)
        process = await second.exec(["true"])
        assert (await process.wait()).code == 0
        await second.delete(force=True)


@pytest.mark.runtimes("runc")
@pytest.mark.parametrize("first", ["runc", "crun"])
async def test_same_id_two_runtimes(
    bundle: MakeBundle, workdir: Path, cgroup_parent: str, first: str
) -> None:
    """Deleting a container by force leaves the one of the same id under another runtime alone."""
    names = [first, "crun" if first == "runc" else "runc"]
    for name in names:
        if (obstacle := choose(name).obstacle) is not None:
            pytest.skip(obstacle)
    spec = bundle("sleep", "600")
    async with (
        open_supervisor(
            workdir / "one", runtime=Runtime.find(names[0]), cgroup_parent=cgroup_parent
        ) as one,
        open_supervisor(
            workdir / "two", runtime=Runtime.find(names[1]), cgroup_parent=cgroup_parent
        ) as two,
    ):
        boxes = [await sup.create("same", spec) for sup in (one, two)]
        for box in boxes:
            await box.start()
        await boxes[0].delete(force=True)
        assert (boxes[1].state, boxes[1].status) == (State.RUNNING, None)
        assert (await (await boxes[1].exec(["true"])).wait()).code == 0
        await boxes[1].delete(force=True)


@pytest.mark.runtimes("runc", "crun")
async def test_burst(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A burst of a hundred creates at once is steady: all of them run and end as they should."""
    spec = bundle("sh", "-c", "exit 3")
    codes: list[int | None] = []
    async with supervisor() as sup:

        async def one(n: int) -> None:
            async with await sup.create(f"b{n}", spec) as box:
                await box.start()
                codes.append((await box.wait()).code)

        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(one, n)
    assert codes == [3] * 100
