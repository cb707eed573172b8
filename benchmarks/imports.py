"""`import supervisor` compared with `import trio`, in fresh interpreters.

Usage: python benchmarks/imports.py [--quick] [--rounds N] [--json FILE]

The clock runs inside the interpreter, around the import only. Target: 1.3 times `import trio`,
which `import supervisor` includes.
"""

from __future__ import annotations

import subprocess
import sys

from _figures import OURS, Row, Target
from _stage import Stage, perform
from _turns import Way, summaries, take_turns

FLOOR = "import trio"
TIMES = 1.3
_PROGRAM = """
import time
begin = time.perf_counter()
import {}
print((time.perf_counter() - begin) * 1e3)
"""


def importing(module: str) -> Way:
    """Return the way whose figure is the milliseconds that the import of a module takes."""

    async def way() -> float:
        command = [sys.executable, "-c", _PROGRAM.format(module)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        return float(done.stdout)

    return way


async def measure(stage: Stage) -> list[Row]:
    """Measure."""
    ways = {OURS: importing("supervisor"), FLOOR: importing("trio")}
    figures = summaries(await take_turns(ways, stage.rounds(40, 8), seconds=stage.seconds))
    target = Target(f"≤ {TIMES} × {FLOOR}", TIMES * figures[FLOOR].median)
    return [
        Row(
            benchmark=stage.name,
            case="import supervisor",
            unit="ms",
            figures=figures,
            floor=FLOOR,
            target=target,
        )
    ]


if __name__ == "__main__":
    perform(measure)
