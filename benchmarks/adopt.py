"""Open a root with many live containers that an earlier supervisor has left.

Usage: python benchmarks/adopt.py [--quick] [--rounds N] [--containers N] [--json FILE]

Three roots take turns, with 250, 500 and 1,000 containers of a stand-in for a runtime. The floor is
a loop that does the least that an adoption needs for each container: acquire the lock, read and
parse the two records, open the fifo and both processes. Target: 0.5 ms for each container, and no
more for each of many than for each of few.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path

from _figures import OURS, Row, Summary, Target
from _stage import Stage, depopulate, perform, populate
from _turns import Way, summaries, take_turns

EACH_MS = 0.5
LINEAR = 1.2
LEAST_WORK = "least work"


def ours(stage: Stage, root: str, count: int) -> Way:
    """Return the library's way: milliseconds for each container."""

    async def way() -> float:
        begin = time.perf_counter()
        async with stage.open(stage.standin, root) as sup:
            took = time.perf_counter() - begin
            if len(sup) != count or sup.broken:
                raise RuntimeError(f"{len(sup)} of {count} containers were adopted")
        return took * 1e3 / count

    return way


def least_work(root: Path, count: int) -> Way:
    """Return the floor's way."""

    async def way() -> float:
        with contextlib.ExitStack() as opened:
            begin = time.perf_counter()
            for entry in os.scandir(root):
                if not entry.name.startswith("."):
                    _take(Path(entry.path), opened)
            return (time.perf_counter() - begin) * 1e3 / count

    return way


def _take(container: Path, opened: contextlib.ExitStack) -> None:
    init = f"{container}/init"
    paths = (f"{container}/lock", f"{init}/exit")
    fds = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in paths]
    fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    for path in (f"{container}/state.json", f"{init}/process.json"):
        with open(path) as file:
            json.load(file)
    for path in (f"{init}/pid", f"{init}/shim"):
        with open(path) as file:
            fds.append(os.pidfd_open(int(file.read().split()[0])))
    for fd in fds:
        opened.callback(os.close, fd)


async def measure(stage: Stage) -> list[Row]:
    """Make the containers, then open their roots again and again."""
    most = stage.containers(1000, 200)
    counts = [most // 4, most // 2, most]
    roots = {count: f"root-{count}" for count in counts}
    for count, root in roots.items():
        async with stage.open(stage.standin, root) as sup:
            await populate(sup, stage.bundle("idle"), range(count))
    ways = {}
    for count, root in roots.items():
        ways[f"{OURS} {count}"] = ours(stage, root, count)
        ways[f"{LEAST_WORK} {count}"] = least_work(stage.directory / root, count)
    figures = summaries(await take_turns(ways, stage.rounds(10, 5), seconds=stage.seconds))
    for root in roots.values():
        async with stage.open(stage.standin, root) as sup:
            await depopulate(sup)
    return [*(row(stage, count, figures) for count in counts), linear(stage, counts, figures)]


def row(stage: Stage, count: int, figures: dict[str, Summary]) -> Row:
    """Return the row of one root."""
    return Row(
        benchmark=stage.name,
        case=f"each of {count:,}",
        unit="ms",
        figures={name: figures[f"{name} {count}"] for name in (OURS, LEAST_WORK)},
        floor=LEAST_WORK,
        target=Target(f"≤ {EACH_MS} ms", EACH_MS),
    )


def linear(stage: Stage, counts: list[int], figures: dict[str, Summary]) -> Row:
    """Return the row that compares the most with the fewest."""
    few, many = counts[0], counts[-1]
    times = {
        name: figures[f"{name} {many}"].median / figures[f"{name} {few}"].median
        for name in (OURS, LEAST_WORK)
    }
    return Row(
        benchmark=stage.name,
        case=f"one of {many:,} beside one of {few:,}",
        unit="×",
        figures={name: Summary.of([value]) for name, value in times.items()},
        target=Target(f"linear: ≤ {LINEAR} ×", LINEAR),
    )


if __name__ == "__main__":
    perform(measure)
