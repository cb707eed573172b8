"""A container that runs `true`: create, start, wait, delete, one after the other.

Usage: python benchmarks/lifecycle.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]
       [--profile FILE]     a cProfile of the library's turns

Target: the bare loop + 1.5 ms with crun, 1.05 times the bare loop with runc.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import itertools
import time

from _figures import BARE, OURS, Row
from _rivals import rivals
from _stage import Stage, perform
from _turns import Way, summaries, take_turns
from _ways import AsyncioLoop, BareLoop, allowed, bare_way, lifecycle

from supervisor import Bundle, Runtime, Supervisor


def our_way(sup: Supervisor, bundle: Bundle, profile: cProfile.Profile | None) -> Way:
    """Return the library's way."""
    numbers = itertools.count()

    async def way() -> float:
        id = f"ours-{next(numbers)}"
        with profile or contextlib.nullcontext():
            begin = time.perf_counter()
            await lifecycle(sup, id, bundle)
            return (time.perf_counter() - begin) * 1e3

    return way


async def one_runtime(
    stage: Stage, name: str, runtime: Runtime, profile: cProfile.Profile | None
) -> Row:
    """Measure with one runtime."""
    bare, with_asyncio = BareLoop(stage, runtime), AsyncioLoop(stage, runtime)
    with contextlib.closing(with_asyncio):
        async with rivals(stage, runtime) as others, stage.open(runtime, f"root-{name}") as sup:
            ways = {
                OURS: our_way(sup, stage.bundle("true"), profile),
                BARE: bare_way(bare, bare.lifecycle),
                "asyncio loop": bare_way(with_asyncio, with_asyncio.lifecycle),
                **{rival.name: rival.way for rival in others},
            }
            figures = summaries(
                await take_turns(
                    ways,
                    stage.rounds(150, 20),
                    seconds=stage.seconds,
                    seldom={rival.name: rival.seldom for rival in others},
                )
            )
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
    path = stage.options.profile
    profile = cProfile.Profile() if path else None
    rows = [
        await one_runtime(stage, name, runtime, profile)
        for name, runtime in stage.all_runtimes().items()
    ]
    if profile is not None:
        profile.dump_stats(path)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's own options."""
    parser.add_argument("--profile", metavar="FILE", help="a cProfile of the library's turns")


if __name__ == "__main__":
    perform(measure, add_arguments=add_arguments)
