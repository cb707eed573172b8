"""From a process's last instruction to the return of `wait()`, alone and beside many containers.

Usage: python benchmarks/notice.py [--quick] [--rounds N] [--containers N] [--runtime NAME]...

The program reads the clock, writes the time into a file, and ends. The floor is `waitpid` in a loop
without other work, which shows the time that the kernel needs to end a process and the namespaces.
Target: a median of 1 ms, and of 2 ms with 1,000 other containers. A stand-in for a runtime makes
these containers, without namespaces.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from pathlib import Path

from _figures import BARE, OURS, Row, Target
from _stage import Stage, perform, populated
from _turns import Way, summaries, take_turns
from _ways import BareLoop, wait_for

from supervisor import Bundle, Runtime, Supervisor

ALONE_MS = 1.0
AMONG_MANY_MS = 2.0


def since(stamp: Path) -> float:
    """Return how many milliseconds ago a program wrote the time into its file."""
    now = time.monotonic_ns()
    return (now - int(stamp.read_text())) / 1e6


def ours(sup: Supervisor, bundle: Bundle, stamp: Path) -> Way:
    """Return the library's way."""
    numbers = itertools.count()

    async def way() -> float:
        stamp.write_bytes(b"")
        box = await sup.create(f"notice-{next(numbers)}", bundle, stdout=stamp)
        await box.start()
        await box.wait()
        figure = since(stamp)
        await box.delete()
        return figure

    return way


def bare(loop: BareLoop, stamp: Path) -> Way:
    """Return the bare loop's way."""

    async def way() -> float:
        id, bundle = loop.new()
        with stamp.open("wb") as output:
            pid = loop.begin(id, bundle, output=output)
        wait_for(pid)
        figure = since(stamp)
        subprocess.run(loop.call("delete", id), check=True)
        return figure

    return way


async def one_case(stage: Stage, case: str, runtime: Runtime, others: int, limit_ms: float) -> Row:
    """Measure with one runtime, beside ``others`` idle containers."""
    stamp = stage.directory / "stamp"
    loop = BareLoop(stage, runtime, "stamp")
    async with populated(stage, others, runtime=runtime, root=f"root-{case}") as sup:
        ways = {OURS: ours(sup, stage.bundle("stamp"), stamp), BARE: bare(loop, stamp)}
        figures = await take_turns(ways, stage.rounds(100, 15), seconds=stage.seconds)
    return Row(
        benchmark=stage.name,
        case=case,
        unit="ms",
        figures=summaries(figures),
        floor=BARE,
        target=Target(f"≤ {limit_ms:g} ms", limit_ms),
    )


async def measure(stage: Stage) -> list[Row]:
    """Measure alone with each runtime, then among many containers."""
    many = stage.containers(1000, 250)
    cases = [
        *((name, runtime, 0, ALONE_MS) for name, runtime in stage.all_runtimes().items()),
        ("stand-in", stage.standin, 0, ALONE_MS),
        (f"stand-in, {many:,} others", stage.standin, many, AMONG_MANY_MS),
    ]
    return [await one_case(stage, *case) for case in cases]


if __name__ == "__main__":
    perform(measure)
