"""How fast bytes come out of a container's terminal, compared with a bare terminal.

Usage: python benchmarks/terminal.py [--quick] [--mib N] [--rounds N] [--runtime NAME]

In a container, `dd` writes to a pseudo-terminal in raw mode, and an attached client reads. The
floor is a `dd` on the host, whose reader holds the terminal's master. The library has one copy
more: the shim copies all bytes. Target: 0.8 times the bare terminal.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pty
import tty

import trio
from _figures import OURS, Row, Target
from _stage import Stage, perform
from _turns import Way, summaries, take_turns
from stream import drain, first_runtime, writer

from supervisor import Bundle, Supervisor

BARE_TERMINAL = "bare pty"
SHARE = 0.8
MIB = 64


def bare_terminal(mib: int) -> Way:
    """Return the floor's way."""

    async def way() -> float:
        master, slave = pty.openpty()
        tty.setraw(slave)
        process = await trio.lowlevel.open_process(writer(mib), stdout=slave)
        os.close(slave)
        async with trio.lowlevel.FdStream(master) as stream:
            figure = await drain(stream, mib)
        await process.wait()
        return figure

    return way


def ours(sup: Supervisor, bundle: Bundle, mib: int) -> Way:
    """Return the library's way."""
    numbers = itertools.count()

    async def way() -> float:
        async with await sup.create(f"pty-{next(numbers)}", bundle, terminal=True) as box:
            async with await box.attach() as terminal:
                await box.start()
                await terminal.receive_some(1)
                return await drain(terminal, mib)

    return way


async def measure(stage: Stage) -> list[Row]:
    """Measure with one runtime: the runtime has no influence on the speed."""
    mib = stage.options.mib or MIB
    name, runtime = first_runtime(stage)
    script = f"stty raw; printf x; exec {' '.join(writer(mib))}"
    bundle = Bundle.from_host(["sh", "-c", script], path=stage.directory / "bundle-pty")
    async with stage.open(runtime) as sup:
        ways = {BARE_TERMINAL: bare_terminal(mib), OURS: ours(sup, bundle, mib)}
        figures = summaries(await take_turns(ways, stage.rounds(9, 3), seconds=stage.seconds))
    floor = figures[BARE_TERMINAL].median
    return [
        Row(
            benchmark=stage.name,
            case=f"{name}, {mib} MiB",
            unit="MB/s",
            figures=figures,
            floor=BARE_TERMINAL,
            target=Target(f"≥ {SHARE} × {BARE_TERMINAL}", SHARE * floor, at_least=True),
        )
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's own options."""
    parser.add_argument("--mib", type=int, help=f"MiB of each stream ({MIB})")


if __name__ == "__main__":
    perform(measure, add_arguments=add_arguments)
