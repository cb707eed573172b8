"""What an idle shim costs: memory and descriptors, measured with many of them.

Usage: python benchmarks/memory.py [--shims N] [--runtime NAME]

PSS counts a page that several processes share in equal parts, so it depends on how many there
are. Source: proc_pid_smaps(5).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import trio

from supervisor import Bundle, Container, Runtime, Supervisor, open_supervisor
from supervisor.cgroups import Hierarchies
from supervisor.shim import find_binary
from supervisor.state import RootLayout, read_shim

CGROUP_PARENT = f"/trio-supervisor-benchmark-{os.getpid()}"
TARGET_KB = 100.0
FIGURES = ("Pss", "Rss", "Private_Dirty", "Private_Clean", "Shared_Clean")


def memory(pid: int) -> dict[str, int]:
    """Return the figures of one process, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


async def start_one(sup: Supervisor, bundle: Bundle, number: int) -> None:
    """Start a container that does nothing."""
    box: Container = await sup.create(f"idle-{number}", bundle)
    await box.start()


def own_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def measure(shims: int, runtime: Runtime) -> None:
    """Start that many containers, and print what their shims hold."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
        Bundle.from_host(["sleep", "1000"]) as bundle,
    ):
        root = Path(directory) / "root"
        async with open_supervisor(
            root, runtime=runtime, cgroup_parent=CGROUP_PARENT, leash=True
        ) as sup:
            before = own_descriptors()
            async with trio.open_nursery() as nursery:
                for number in range(shims):
                    nursery.start_soon(start_one, sup, bundle, number)
            show(RootLayout(sup.root), own_descriptors() - before)


def show(layout: RootLayout, descriptors: int) -> None:
    """Print the figures of all shims below a root."""
    identities = [read_shim(container.init.shim) for container in layout.containers()]
    pids = [identity[0] for identity in identities if identity is not None]
    figures = [memory(pid) for pid in pids]
    print(
        f"{len(pids)} idle shims ({os.path.getsize(find_binary('supervisor-shim'))} bytes on disk)"
    )
    for name in FIGURES:
        values = [figure[name] for figure in figures]
        print(f"{name:14} median {statistics.median(values):.0f} kB, highest {max(values)} kB")
    pss = statistics.mean(figure["Pss"] for figure in figures)
    verdict = "within" if pss <= TARGET_KB else "above"
    print(f"PSS each, on average: {pss:.1f} kB, {verdict} the target of {TARGET_KB:.0f} kB")
    print(f"descriptors in the supervising program, each: {descriptors / len(pids):.1f}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shims", type=int, default=30, help="how many (default: 30)")
    parser.add_argument("--runtime", help="default: the first that can run here")
    options = parser.parse_args()
    try:
        trio.run(measure, options.shims, Runtime.find(options.runtime))
    finally:
        for directory in Hierarchies.discover().remains(CGROUP_PARENT):
            os.rmdir(directory)


if __name__ == "__main__":
    main()
