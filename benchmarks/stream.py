"""How fast bytes come out of a container: to a Trio reader, and into a log.

Usage: python benchmarks/stream.py [--quick] [--mib N] [--rounds N] [--runtime NAME]

`dd` on the host writes to a Trio reader through a raw pipe. The same `dd` in a container writes
through PIPE, and into LOG. The clock runs from the first byte to the last. Targets: 0.95 times the
raw pipe; 300 MB/s into the log.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import time
from collections.abc import AsyncIterator

import trio
from _figures import OURS, Row, Target
from _stage import Stage, perform
from _turns import Way, summaries, take_turns

from supervisor import PIPE, Bundle, LogFile, Runtime, Supervisor

RAW = "raw pipe"
LOG_WAY = "log"
SHARE = 0.95
LOG_MB = 300.0
LOG_BYTES = 64 << 20


def writer(mib: int) -> list[str]:
    """Return a command that writes ``mib`` MiB of zeros."""
    return ["dd", "if=/dev/zero", "bs=65536", f"count={mib * 16}", "status=none"]


async def drain(chunks: AsyncIterator[bytes] | trio.abc.ReceiveStream, mib: int) -> float:
    """Read all ``mib`` MiB; return the MB per second, from the first byte on."""
    size, begin = 0, 0.0
    async for chunk in chunks:
        begin = begin or time.perf_counter()
        size += len(chunk)
        if size >= mib << 20:
            break
    if size != mib << 20:
        raise RuntimeError(f"{size} bytes came, not {mib} MiB")
    return size / 1e6 / (time.perf_counter() - begin)


def raw_pipe(mib: int) -> Way:
    """Return the floor's way: the same two programs, connected by a pipe."""

    async def way() -> float:
        process = await trio.lowlevel.open_process(writer(mib), stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with process.stdout:
            figure = await drain(process.stdout, mib)
        await process.wait()
        return figure

    return way


def through_pipe(sup: Supervisor, bundle: Bundle, mib: int) -> Way:
    """Return the library's way to a Trio reader."""
    numbers = itertools.count()

    async def way() -> float:
        async with await sup.create(f"pipe-{next(numbers)}", bundle, stdout=PIPE) as box:
            assert box.stdout is not None
            await box.start()
            figure = await drain(box.stdout, mib)
            await box.wait()
        return figure

    return way


def into_log(sup: Supervisor, bundle: Bundle, mib: int) -> Way:
    """Return the library's way into a bounded, rotated log."""
    numbers = itertools.count()

    async def way() -> float:
        log = LogFile(max_bytes=LOG_BYTES, files=2)
        async with await sup.create(f"log-{next(numbers)}", bundle, stdout=log) as box:
            begin = time.perf_counter()
            await box.start()
            await box.wait()
            return (mib << 20) / 1e6 / (time.perf_counter() - begin)

    return way


async def one_runtime(stage: Stage, name: str, runtime: Runtime, mib: int) -> list[Row]:
    """Measure with one runtime."""
    path = stage.directory / "bundle-dd"
    bundle = Bundle.load(path) if path.exists() else Bundle.from_host(writer(mib), path=path)
    async with stage.open(runtime, f"root-{name}") as sup:
        ways = {
            RAW: raw_pipe(mib),
            OURS: through_pipe(sup, bundle, mib),
            LOG_WAY: into_log(sup, bundle, mib),
        }
        figures = summaries(await take_turns(ways, stage.rounds(7, 3), seconds=stage.seconds))
    size = f"{name}, {mib:,} MiB"
    return [
        Row(
            benchmark=stage.name,
            case=f"{size} to a reader",
            unit="MB/s",
            figures={OURS: figures[OURS], RAW: figures[RAW]},
            floor=RAW,
            target=Target(f"≥ {SHARE} × {RAW}", SHARE * figures[RAW].median, at_least=True),
        ),
        Row(
            benchmark=stage.name,
            case=f"{size} into a log",
            unit="MB/s",
            figures={OURS: figures[LOG_WAY], RAW: figures[RAW]},
            floor=RAW,
            target=Target(f"≥ {LOG_MB:g} MB/s", LOG_MB, at_least=True),
        ),
    ]


async def measure(stage: Stage) -> list[Row]:
    """Measure with one runtime: the runtime has no influence on the speed."""
    mib = stage.options.mib or (256 if stage.options.quick else 1024)
    name, runtime = first_runtime(stage)
    return await one_runtime(stage, name, runtime, mib)


def first_runtime(stage: Stage) -> tuple[str, Runtime]:
    """Return the first real runtime."""
    return next(iter(stage.all_runtimes().items()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's own options."""
    parser.add_argument("--mib", type=int, help="MiB of each stream (1024; 256 when quick)")


if __name__ == "__main__":
    perform(measure, add_arguments=add_arguments)
