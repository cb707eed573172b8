"""The time of each step of one lifecycle, compared with the runtime's own calls.

Usage: python benchmarks/steps.py [--quick] [--rounds N] [--runtime NAME]... [--json FILE]

The library calls a function at each `Point` between two steps (`supervisor.values`); here this
function reads the clock. In the same rounds the runtime's three calls are made bare, from a sealed
copy of the runtime's program, each waited for without a loop: no supervisor can save this time. The
container's program runs for 30 ms, which aren't counted, so that the end doesn't fall into another
step. A pause before each turn makes the conditions equal: a create moves a process into cgroups,
and for this the kernel waits for an RCU grace period, unless a process was moved just before.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from pathlib import Path

import trio
from _figures import OURS, Row, Summary
from _stage import Stage, perform
from _turns import take_turns
from _ways import Bare, wait_for

from supervisor import Bundle, Runtime, Supervisor
from supervisor.children._pidfd import PidFd
from supervisor.observers import Observation, Point
from supervisor.runtime import SealedPrograms

PAUSE_SECONDS = 0.05
CALL = "bare call"
ALL = "all of it"
ENDED = "the end: the shim records it, we see it on the fifo"

STEPS = {
    Point.TEMPORARY_MADE: "create: checks, the spec, the records; a directory",
    Point.LOCKED: "create: its lock",
    Point.FILLED: "create: state.json, config.json, process.json",
    Point.DIRECTORY_MADE: "create: the directory gets its name",
    Point.FIFOS_MADE: "create: init's task, two fifos",
    Point.LAUNCHED: "create: spawn the shim",
    Point.REPORTED: "create: the shim's start, the runtime's create, the report",
    Point.WATCHED: "create: pidfd, start time",
    "created": "create: returns",
    Point.STARTING: "start: checks, a file for the log",
    Point.START_RETURNED: "start: the runtime's start",
    Point.STARTED: "start: the marker",
    "started": "start: returns",
    Point.EXIT_SEEN: ENDED,
    Point.SETTLED: "the end: read, result.json",
    "waited": "the end: wait() returns",
    Point.DELETE_INTENDED: "delete: the intent, in state.json",
    Point.PROCESSES_ENDED: "delete: nothing is left to be ended",
    Point.FORGOTTEN: "delete: the runtime's delete",
    Point.CGROUP_REMOVED: "delete: the cgroup, in every hierarchy",
    Point.SHIMS_GONE: "delete: the shim is gone",
    Point.REMOVED: "delete: the directory",
    "deleted": "delete: returns",
}
CALLS = {Point.REPORTED: "create", Point.START_RETURNED: "start", Point.FORGOTTEN: "delete"}


class Clock:
    """Measures the time from each point to the next; the time counts for the later point."""

    def __init__(self) -> None:
        self.took: defaultdict[Point | str, list[float]] = defaultdict(list)
        self._last_ns = 0
        self._at_ns: dict[Point | str, int] = {}

    def begin(self) -> None:
        """Start the clock."""
        self._last_ns = time.monotonic_ns()

    def observe(self, seen: Observation) -> None:
        """Record the time since the last point, at each point."""
        if isinstance(seen, Point):
            self.reach(seen)

    def reach(self, point: Point | str) -> None:
        """Record the time since the last point."""
        self._at_ns[point] = now = time.monotonic_ns()
        self.took[point].append((now - self._last_ns) / 1e6)
        self._last_ns = time.monotonic_ns()

    def without(self, point: Point, *, before_ns: int) -> None:
        """Count a point's last figure only from the moment ``before_ns`` on."""
        self.took[point][-1] = (self._at_ns[point] - before_ns) / 1e6


class Sealed(Bare):
    """The runtime's bare calls, from a sealed copy of the program, as the library makes them."""

    kind = "sealed"

    def __init__(self, stage: Stage, runtime: Runtime, programs: SealedPrograms) -> None:
        super().__init__(stage, runtime, "true")
        self._program = programs.open(runtime.path)
        self.took: defaultdict[str, list[float]] = defaultdict(list)

    async def way(self) -> float:
        """Make the three calls."""
        id, bundle = self.new()
        await trio.sleep(PAUSE_SECONDS)
        self._call("create", self.create(id, bundle))
        pid = int((bundle / "pid").read_text())
        self._call("start", self.call("start", id))
        wait_for(pid)
        self._call("delete", self.call("delete", id))
        return sum(figures[-1] for figures in self.took.values())

    def _call(self, verb: str, command: list[str]) -> None:
        begin = time.perf_counter()
        process = PidFd.spawn(command, program=self._program)
        wait_for(process.pid)
        self.took[verb].append((time.perf_counter() - begin) * 1e3)
        process.close()


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> list[Row]:
    """Measure with one runtime."""
    clock, programs = Clock(), SealedPrograms()
    bare = Sealed(stage, runtime, programs)
    async with stage.open(runtime, f"root-{name}", _observer=clock.observe) as sup:
        bundle, stamp = stage.bundle("stamp"), stage.directory / "stamp"
        numbers = itertools.count()

        async def ours() -> float:
            return await lifecycle(sup, f"steps-{next(numbers)}", bundle, stamp, clock)

        ways = {OURS: ours, CALL: bare.way}
        totals = await take_turns(ways, stage.rounds(150, 25), seconds=stage.seconds)
    programs.close()
    return [
        *(row(name, point, clock, bare) for point in STEPS if clock.took[point]),
        Row(
            benchmark=name,
            case=ALL,
            unit="ms",
            figures={way: Summary.of(figures) for way, figures in totals.items()},
            floor=CALL,
        ),
    ]


async def lifecycle(sup: Supervisor, id: str, bundle: Bundle, stamp: Path, clock: Clock) -> float:
    """Go through all steps; return the milliseconds of all steps together."""
    stamp.write_bytes(b"")
    await trio.sleep(PAUSE_SECONDS)
    clock.begin()
    box = await sup.create(id, bundle, stdout=stamp)
    clock.reach("created")
    await box.start()
    clock.reach("started")
    await box.wait()
    clock.reach("waited")
    clock.without(Point.EXIT_SEEN, before_ns=int(stamp.read_text()))
    await box.delete()
    clock.reach("deleted")
    return sum(figures[-1] for figures in clock.took.values())


def row(name: str, point: Point | str, clock: Clock, bare: Sealed) -> Row:
    """Return the row of one step; the first round isn't counted."""
    figures = {OURS: Summary.of(clock.took[point][1:] or clock.took[point])}
    verb = CALLS.get(point)  # type: ignore[arg-type]
    if verb is not None:
        figures[CALL] = Summary.of(bare.took[verb][1:] or bare.took[verb])
    return Row(
        benchmark=name,
        case=STEPS[point],
        unit="ms",
        figures=figures,
        floor=None if verb is None else CALL,
    )


async def measure(stage: Stage) -> list[Row]:
    """Measure with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [row for name, runtime in runtimes for row in await one_runtime(stage, name, runtime)]


if __name__ == "__main__":
    perform(measure)
