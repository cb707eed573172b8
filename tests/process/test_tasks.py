"""Which tasks a process costs, and what users can reach of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import trio

from supervisor import Supervisor
from supervisor.process import process_of, task_of
from tests.conftest import MakeBundle, OpenSupervisor


def tasks(sup: Supervisor) -> Counter[str]:
    """Return the names of the tasks in a supervisor's nursery."""
    return Counter(task.name for task in sup._nursery.child_tasks)


def living() -> int:
    """Return how many tasks there are at all."""
    return trio.lowlevel.current_statistics().tasks_living


async def test_an_exec_costs_one_task(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exec, launched or adopted, costs one task, which watches, holds the lock and cleans up."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        before, count = tasks(sup), living()
        await a.exec(["sleep", "60"], id="job")
        assert tasks(sup) - before == Counter({"a/job": 1})
        assert living() == count + 1
        launched = tasks(sup)
    async with supervisor(root) as sup:
        assert set(sup["a"].processes) == {"init", "job"}
        assert tasks(sup) == launched
        count = living()
        job = sup["a"].processes["job"]
        job.kill()
        await job.wait()
        assert tasks(sup) == before and living() == count - 1
        await sup["a"].delete(force=True)


async def test_a_foreign_exec_costs_one_task(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exec that another supervisor holds costs one task too, before and after a take-over."""
    async with supervisor(root) as one:
        a = await one.create("a", bundle("sleep", "60"))
        await a.start()
        async with supervisor(root) as other:
            before, count = tasks(other), living()
            await a.exec(["sleep", "60"], id="job")
            assert "job" in other["a"].processes
            assert tasks(other) - before == Counter({"a/job": 1})
            assert living() == count + 2
        await a.delete(force=True)


async def test_each_process_is_one_object(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Every look for a process returns the same object."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        assert a.init is a.processes["init"]
        job = await a.exec(["sleep", "60"], id="job")
        assert a.processes["job"] is job
        assert process_of(task_of(job)) is job
