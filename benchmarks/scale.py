"""The time of one more lifecycle among a thousand containers, compared with among ten.

Usage: python benchmarks/scale.py [--quick] [--rounds N] [--containers N] [--json FILE]

A lifecycle (create, start, wait, delete `true`) among ten idle containers, then among a thousand,
then among ten again. The same bare calls take turns with the library; their growth is the kernel's
part. A stand-in for a runtime makes the containers: within seconds, and so quickly that a runtime's
time doesn't hide the library's. Target: 1.2 times.
"""

from __future__ import annotations

import itertools

from _figures import BARE, OURS, Row, Summary, Target
from _stage import Stage, depopulate, perform, populate
from _turns import Way, summaries, take_turns, timed
from _ways import BareLoop, bare_way, lifecycle

from supervisor import Supervisor

FEW = 10
TIMES = 1.2


def ours(stage: Stage, sup: Supervisor) -> Way:
    """Return the library's way."""
    numbers = itertools.count()
    bundle = stage.bundle("true")
    return timed(lambda: lifecycle(sup, f"one-more-{next(numbers)}", bundle))


async def measure(stage: Stage) -> list[Row]:
    """Measure among few containers, among many, and among few again."""
    many = stage.containers(1000, 250)
    loop = BareLoop(stage, stage.standin)
    async with stage.open(stage.standin) as sup:
        ways = {OURS: ours(stage, sup), BARE: bare_way(loop, loop.lifecycle)}

        async def sample(rounds: int) -> dict[str, list[float]]:
            return await take_turns(ways, rounds, seconds=stage.seconds)

        rounds = stage.rounds(150, 30)
        idle = stage.bundle("idle")
        await populate(sup, idle, range(FEW))
        first = await sample(rounds)
        await populate(sup, idle, range(FEW, many))
        among_many = summaries(await sample(2 * rounds))
        await depopulate(sup, [f"idle-{number}" for number in range(FEW, many)])
        second = await sample(rounds)
        await depopulate(sup)
    among_few = summaries({name: first[name] + second[name] for name in ways})
    times = {name: among_many[name].median / among_few[name].median for name in ways}
    return [
        row(stage, f"among {FEW}", among_few),
        row(stage, f"among {many:,}", among_many),
        Row(
            benchmark=stage.name,
            case=f"one among {many:,} beside one among {FEW}",
            unit="×",
            figures={name: Summary.of([value]) for name, value in times.items()},
            target=Target(f"≤ {TIMES} ×", TIMES),
        ),
    ]


def row(stage: Stage, case: str, figures: dict[str, Summary]) -> Row:
    """Return the row of one number of containers."""
    return Row(
        benchmark=stage.name, case=f"stand-in, {case}", unit="ms", figures=figures, floor=BARE
    )


if __name__ == "__main__":
    perform(measure)
