"""Containers that run `true`, 8 and 32 at a time: how many per second, and how slow the slowest.

Usage: python benchmarks/burst.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]

The bare loop runs each container in a thread. Targets: 0.95 times as many containers per second as
the bare loop; and at most one in a hundred of the library's takes over 3 times the median.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import trio
from _figures import BARE, OURS, Row, Summary, Target
from _stage import Stage, perform
from _turns import Way, summaries, take_turns
from _ways import AsyncioLoop, BareLoop, lifecycle

from supervisor import Bundle, Runtime, Supervisor

AT_ONCE = (8, 32)
SHARE = 0.95
LATE = 3.0

Batch = Callable[[int, int], Awaitable[list[float]]]
"""Runs many containers, some at a time; returns the seconds that each took."""


def threads(loop: BareLoop) -> Batch:
    """Return the bare loop's way."""

    async def batch(count: int, at_once: int) -> list[float]:
        prepared = [loop.new() for _ in range(count)]

        def one(number: int) -> float:
            begin = time.perf_counter()
            loop.lifecycle(prepared[number])
            return time.perf_counter() - begin

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(one, range(count)))

    return batch


def tasks(loop: AsyncioLoop) -> Batch:
    """Return asyncio's way."""

    async def batch(count: int, at_once: int) -> list[float]:
        return loop.many([loop.new() for _ in range(count)], at_once)

    return batch


def ours(sup: Supervisor, bundle: Bundle) -> Batch:
    """Return the library's way."""
    numbers = itertools.count()

    async def batch(count: int, at_once: int) -> list[float]:
        took: list[float] = []
        todo = iter([f"burst-{next(numbers)}" for _ in range(count)])

        async def worker() -> None:
            for id in todo:
                begin = time.perf_counter()
                await lifecycle(sup, id, bundle)
                took.append(time.perf_counter() - begin)

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(worker)
        return took

    return batch


def rate(batch: Batch, count: int, at_once: int, took: list[float]) -> Way:
    """Return the way whose figure is the number of containers per second."""

    async def way() -> float:
        begin = time.perf_counter()
        took.extend(await batch(count, at_once))
        return count / (time.perf_counter() - begin)

    return way


def tail(took: list[float]) -> Summary:
    """Return the 99th percentile, as a multiple of the median."""
    in_order = sorted(took)
    late = in_order[min(len(in_order) - 1, len(in_order) * 99 // 100)]
    return Summary.of([late / in_order[len(in_order) // 2]])


async def one_case(
    stage: Stage, name: str, at_once: int, batches: dict[str, Batch]
) -> tuple[Row, Row]:
    """Measure with one runtime, ``at_once`` containers at a time."""
    took: dict[str, list[float]] = {way: [] for way in batches}
    count = max(16, at_once) if stage.options.quick else 4 * at_once
    ways = {way: rate(batch, count, at_once, took[way]) for way, batch in batches.items()}
    figures = summaries(await take_turns(ways, stage.rounds(8, 2), seconds=stage.seconds / 2))
    wanted = Target(f"≥ {SHARE} × {BARE}", SHARE * figures[BARE].median, at_least=True)
    return (
        Row(
            benchmark=stage.name,
            case=f"{name}, {at_once} at a time",
            unit="per s",
            figures=figures,
            floor=BARE,
            target=wanted,
        ),
        Row(
            benchmark=stage.name,
            case=f"{name}, {at_once} at a time: p99",
            unit="× median",
            figures={way: tail(values) for way, values in took.items()},
            target=Target(f"≤ {LATE:g} × its median", LATE),
        ),
    )


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> list[Row]:
    """Measure with one runtime."""
    rows: list[Row] = []
    bare, with_asyncio = BareLoop(stage, runtime), AsyncioLoop(stage, runtime)
    with contextlib.closing(with_asyncio):
        async with stage.open(runtime, f"root-{name}") as sup:
            batches = {
                OURS: ours(sup, stage.bundle("true")),
                BARE: threads(bare),
                "asyncio loop": tasks(with_asyncio),
            }
            for at_once in AT_ONCE:
                rows += await one_case(stage, name, at_once, batches)
    return rows


async def measure(stage: Stage) -> list[Row]:
    """Measure with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [row for name, runtime in runtimes for row in await one_runtime(stage, name, runtime)]


if __name__ == "__main__":
    perform(measure)
