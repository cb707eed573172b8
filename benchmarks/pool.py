"""A container from a warm pool: from the take to the program's exit, compared with the bare loop.

Usage: python benchmarks/pool.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]

The pool's work in the background (the delete, the next create) isn't in the figure, and is done
before the next turn begins. Target: half of the bare loop's create, start, wait and delete.
"""

from __future__ import annotations

import time

import trio
from _figures import BARE, OURS, Row, Target
from _rivals import rivals
from _stage import Stage, perform
from _turns import summaries, take_turns
from _ways import BareLoop, bare_way

from supervisor import ContainerPool, Runtime

SIZE = 4
SHARE = 0.5


async def settled(pool: ContainerPool) -> None:
    """Return when all containers are ready, and the pool has no work in the background."""
    await pool.wait_full()
    while pool.statistics().deleting or pool.statistics().creating:
        await trio.sleep(0.001)


async def take(pool: ContainerPool) -> float:
    """Return the milliseconds from the take to the exit."""
    await settled(pool)
    begin = time.perf_counter()
    async with pool.take() as box:
        status = await box.wait()
        figure = (time.perf_counter() - begin) * 1e3
    if int(status) != 0:
        raise RuntimeError(f"{OURS}: {status}")
    await settled(pool)
    return figure


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> Row:
    """Measure with one runtime."""
    bare = BareLoop(stage, runtime)
    async with (
        rivals(stage, runtime) as others,
        stage.open(runtime, f"root-{name}") as sup,
        ContainerPool(stage.bundle("true"), size=SIZE, supervisor=sup) as pool,
    ):
        ways = {
            OURS: lambda: take(pool),
            BARE: bare_way(bare, bare.lifecycle),
            **{rival.name: rival.way for rival in others},
        }
        figures = summaries(
            await take_turns(
                ways,
                stage.rounds(100, 15),
                seconds=stage.seconds,
                seldom={rival.name: rival.seldom for rival in others},
            )
        )
    return Row(
        benchmark=stage.name,
        case=f"{name}, taken warm",
        unit="ms",
        figures=figures,
        floor=BARE,
        target=Target(f"≤ {SHARE} × {BARE}", SHARE * figures[BARE].median),
    )


async def measure(stage: Stage) -> list[Row]:
    """Measure with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [await one_runtime(stage, name, runtime) for name, runtime in runtimes]


if __name__ == "__main__":
    perform(measure)
