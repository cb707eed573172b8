"""`true` in a running container: exec and wait, compared with the runtime's own exec.

Usage: python benchmarks/exec.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]

Target: the bare exec + 1.5 ms with crun, 1.05 times the bare exec with runc.
"""

from __future__ import annotations

import contextlib

from _figures import BARE, OURS, Row
from _rivals import rivals
from _stage import Stage, perform
from _turns import summaries, take_turns, timed, timed_sync
from _ways import AsyncioLoop, BareLoop, allowed

from supervisor import Container, Runtime


async def ours(box: Container) -> None:
    """Exec, and wait."""
    process = await box.exec(["/true"])
    status = await process.wait()
    if int(status) != 0:
        raise RuntimeError(f"{OURS}: {status}")


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> Row:
    """Measure with one runtime; each way has a container of its own."""
    bare, with_asyncio = BareLoop(stage, runtime, "idle"), AsyncioLoop(stage, runtime, "idle")
    running = {loop: loop.new() for loop in (bare, with_asyncio)}
    for loop, prepared in running.items():
        loop.begin(*prepared)
    with contextlib.closing(with_asyncio):
        async with (
            rivals(stage, runtime, exec=True) as others,
            stage.open(runtime, f"root-{name}") as sup,
        ):
            box = await sup.create("idle", stage.bundle("idle"))
            await box.start()
            ways = {
                OURS: timed(lambda: ours(box)),
                BARE: timed_sync(lambda: bare.exec(running[bare][0])),
                "asyncio loop": timed_sync(lambda: with_asyncio.exec(running[with_asyncio][0])),
                **{rival.name: rival.way for rival in others},
            }
            figures = summaries(
                await take_turns(
                    ways,
                    stage.rounds(200, 25),
                    seconds=stage.seconds,
                    seldom={rival.name: rival.seldom for rival in others},
                )
            )
            await box.delete(force=True)
    return Row(
        benchmark=stage.name,
        case=name,
        unit="ms",
        figures=figures,
        floor=BARE,
        target=allowed(name, figures[BARE].median),
    )


async def measure(stage: Stage) -> list[Row]:
    """Measure with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [await one_runtime(stage, name, runtime) for name, runtime in runtimes]


if __name__ == "__main__":
    perform(measure)
