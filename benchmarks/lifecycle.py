"""What this library adds to the lifecycle of a container that runs `true`.

Two ways to do the same take turns in one run, so that whatever else the machine does meets
both: create, start, wait and delete through `supervisor`; and the runtime's create, start and
delete from a bare loop of `subprocess.run`, with the exit waited for by a subreaper.

Usage: python benchmarks/lifecycle.py [--runs N] [--runtime NAME]... [--directory D] [--profile F]

Both keep their state in memory (/dev/shm) by default: so do runtimes, in /run. On a disk, the files
that the library makes cost more, and how much depends on the file system.
"""

from __future__ import annotations

import argparse
import cProfile
import ctypes
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import NamedTuple

import trio
from _machine import able, enter_private_view

from supervisor import Bundle, Container, Runtime, Supervisor, open_supervisor
from supervisor.cgroups import Hierarchies

WARM_UP = 3
CGROUP_PARENT = f"/trio-supervisor-benchmark-{os.getpid()}"
_PR_SET_CHILD_SUBREAPER = 36


class Cost(NamedTuple):
    """What something took."""

    wall_ms: float
    cpu_ms: float

    @classmethod
    def now(cls) -> Cost:
        """Return the clock's time and the processor time of us and all that we have reaped."""
        usages = (
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )
        cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(time.perf_counter() * 1e3, cpu * 1e3)

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(self.wall_ms - earlier.wall_ms, self.cpu_ms - earlier.cpu_ms)


class Bare:
    """The runtime's three calls, and nothing else."""

    def __init__(self, runtime: Runtime, spec: dict[str, object], directory: Path) -> None:
        self._head = [runtime.path, "--root", str(directory / "state")]
        self._bundle = directory / "bundle"
        self._pid_file = directory / "pid"
        self._bundle.mkdir()
        (self._bundle / "config.json").write_text(json.dumps(spec))

    def lifecycle(self) -> None:
        """Create, start, wait, delete."""
        self._call(
            "create", "--bundle", str(self._bundle), "--pid-file", str(self._pid_file), "bench"
        )
        pid = int(self._pid_file.read_text())
        self._call("start", "bench")
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise RuntimeError(f"`true` ended with wait status {status}")
        self._call("delete", "bench")

    def _call(self, *words: str) -> None:
        subprocess.run([*self._head, *words], check=True, stdin=-3, stdout=-3, stderr=-3)


async def lifecycle(supervisor: Supervisor, bundle: Bundle) -> None:
    """Do the same through the library."""
    container: Container = await supervisor.create("bench", bundle)
    await container.start()
    status = await container.wait()
    if int(status) != 0:
        raise RuntimeError(f"`true`: {status}")
    await container.delete()


async def compare(
    name: str, runs: int, directory: str | None, profile: cProfile.Profile | None
) -> None:
    """Run both ways in turn, and print what they took."""
    runtime = Runtime.find(name)
    costs: dict[str, list[Cost]] = {"bare": [], "ours": []}
    async with AsyncExitStack() as stack:
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-", dir=directory))
        )
        Bundle.from_host(["true"], path=place / "bundle-of-both")
        bundle = Bundle.load(place / "bundle-of-both")  # both run it where it is
        bare = Bare(runtime, bundle.derive(cgroup=f"{CGROUP_PARENT}/bare"), place)
        supervisor = await stack.enter_async_context(
            open_supervisor(place / "root", runtime=runtime, cgroup_parent=CGROUP_PARENT)
        )
        for number in range(WARM_UP + runs):
            # What one leaves to the kernel to do later, the next one pays: so they change places.
            for way in ("bare", "ours") if number % 2 else ("ours", "bare"):
                begin = Cost.now()
                if way == "bare":
                    bare.lifecycle()
                else:
                    with profile or nullcontext():
                        await lifecycle(supervisor, bundle)
                if number >= WARM_UP:
                    costs[way].append(Cost.now() - begin)
    show(name, costs["bare"], costs["ours"])


def show(name: str, bare_costs: list[Cost], our_costs: list[Cost]) -> None:
    """Print the medians, their ratio and their difference."""
    bare = statistics.median(cost.wall_ms for cost in bare_costs)
    ours = statistics.median(cost.wall_ms for cost in our_costs)
    bare_cpu = statistics.median(cost.cpu_ms for cost in bare_costs)
    our_cpu = statistics.median(cost.cpu_ms for cost in our_costs)
    limit = max(1.10 * bare, bare + 2)
    verdict = "within" if ours <= limit else "above"
    print(
        f"{name}: bare {bare:.2f} ms, supervisor {ours:.2f} ms: ratio {ours / bare:.3f}, "
        f"difference {ours - bare:+.2f} ms, {verdict} the target of {limit:.2f} ms "
        f"(processor time: {bare_cpu:.2f}, {our_cpu:.2f} ms; {len(bare_costs)} runs each)"
    )


def remove_cgroups() -> None:
    """Remove the parent of the cgroups that were made; what is in it belongs to a failed run."""
    for directory in Hierarchies.discover().directories(CGROUP_PARENT):
        for path, _, _ in os.walk(directory, topdown=False):
            os.rmdir(path)


def main() -> None:
    """Compare, with each runtime that can run here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="of each way (default: 100)")
    parser.add_argument("--runtime", action="append", help="default: crun and runc")
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parser.add_argument("--directory", default=shared_memory, help="for their state (%(default)s)")
    parser.add_argument("--profile", help="write a cProfile of the library's half there")
    options = parser.parse_args()
    runtimes = options.runtime or ["crun", "runc"]
    enter_private_view(runtimes)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    profile = cProfile.Profile() if options.profile else None
    try:
        for name in able(runtimes):
            trio.run(compare, name, options.runs, options.directory, profile)
    finally:
        remove_cgroups()
    if profile is not None:
        profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
