"""The time that a writable layer adds to the lifecycle of a container that runs `true`.

Usage: python benchmarks/overlay.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]

Create, start, wait and delete of the same program on the same root filesystem take turns: with a
fresh layer for each container (``writable="overlay"``), directly on the root filesystem
(``"direct"``, which mounts nothing more), and read-only (None, which mounts two private
directories). Target: 1 ms more than ``"direct"``.
"""

from __future__ import annotations

import itertools

from _figures import OURS, Row, Target
from _stage import Stage, perform
from _turns import Way, summaries, take_turns, timed
from _ways import lifecycle

from supervisor import Bundle, Runtime, Supervisor

DIRECT = "direct"
READ_ONLY = "read-only"
ADDED_MS = 1.0
_WRITABLE = {OURS: "overlay", DIRECT: "direct", READ_ONLY: None}


def way(stage: Stage, sup: Supervisor, writable: str | None) -> Way:
    """Return the way of one kind of root."""
    path = stage.directory / f"bundle-on-{writable}"
    if not path.exists():
        Bundle.from_rootfs(stage.rootfs, ["/true"], writable=writable, path=path)
    bundle, numbers = Bundle.load(path), itertools.count()
    return timed(lambda: lifecycle(sup, f"{writable}-{next(numbers)}", bundle))


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> Row:
    """Measure with one runtime."""
    async with stage.open(runtime, f"root-{name}") as sup:
        ways = {kind: way(stage, sup, writable) for kind, writable in _WRITABLE.items()}
        turns = await take_turns(ways, stage.rounds(100, 15), seconds=stage.seconds / 2)
    figures = summaries(turns)
    return Row(
        benchmark=stage.name,
        case=f"{name}, a layer",
        unit="ms",
        figures=figures,
        floor=DIRECT,
        target=Target(f"≤ {DIRECT} + {ADDED_MS:g} ms", figures[DIRECT].median + ADDED_MS),
    )


async def measure(stage: Stage) -> list[Row]:
    """Measure with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [await one_runtime(stage, name, runtime) for name, runtime in runtimes]


if __name__ == "__main__":
    perform(measure)
