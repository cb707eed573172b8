"""The processor time of many idle containers: of the shims and of the supervising program.

Usage: python benchmarks/idle.py [--quick] [--containers N] [--runtime NAME] [--json FILE]

For ten seconds nothing happens. Then the kernel reports how long the shims and this program have
been on a processor, and how often the kernel switched to one of them. Target: less than 0.1% of a
core for all together.
Source: /proc/PID/schedstat, voluntary_ctxt_switches in proc_pid_status(5).
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import trio
from _figures import OURS, Row, Summary, Target
from _stage import Stage, perform, populated

from supervisor import Runtime
from supervisor.state import RootLayout, read_shim

SECONDS, QUICK_SECONDS = 10.0, 3.0
PERCENT = 0.1
_SWITCHES = re.compile(r"ctxt_switches:\s+(\d+)")


def used(pids: list[int]) -> tuple[int, int]:
    """Return the processor time of all processes in nanoseconds, and the number of switches."""
    nanoseconds = switches = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
            switches += sum(map(int, _SWITCHES.findall((task / "status").read_text())))
    return nanoseconds, switches


async def measure(stage: Stage) -> list[Row]:
    """Measure the idle containers."""
    name = next(iter(stage.runtimes), None)
    runtime = stage.standin if name is None else Runtime.find(name)
    seconds = QUICK_SECONDS if stage.options.quick else SECONDS
    count = stage.containers(200, 50)
    async with populated(stage, count, runtime=runtime) as sup:
        known = [read_shim(layout.init.shim) for layout in RootLayout(sup.root).containers()]
        shims = [identity[0] for identity in known if identity is not None]
        await trio.sleep(1)  # pending work ends
        shims_before = used(shims)
        # Reading costs time too: ours is read last before the pause, and first afterwards.
        own_before = used([os.getpid()])
        begin = time.perf_counter()
        await trio.sleep(seconds)
        own_after = used([os.getpid()])
        lasted = time.perf_counter() - begin
        shims_after = used(shims)
    before = [sum(figures) for figures in zip(shims_before, own_before, strict=True)]
    after = [sum(figures) for figures in zip(shims_after, own_after, strict=True)]
    percent = (after[0] - before[0]) / (lasted * 1e9) * 100
    switches = after[1] - before[1]
    case = f"{count} containers, {seconds:g} s"
    return [
        Row(
            benchmark=stage.name,
            case=case,
            unit="% of a core",
            figures={OURS: Summary.of([percent])},
            target=Target(f"< {PERCENT}% of a core", PERCENT),
        ),
        Row(
            benchmark=stage.name,
            case=f"{case}; one is the clock's own",
            unit="wake-ups",
            figures={OURS: Summary.of([float(switches)])},
        ),
    ]


if __name__ == "__main__":
    perform(measure)
