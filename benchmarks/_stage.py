"""The stage of a benchmark: options, directories, supervisors, and the clean-up afterwards.

A benchmark is `perform(measure)`, which starts the program a second time, in a mount namespace in
which crun can run, and waits. However the second program ends, the first one removes the processes,
cgroups and files that are left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import trio
from _figures import Row, text_table
from _machine import (
    able,
    become_subreaper,
    describe,
    end_with_parent,
    private_view,
    processes_below,
    raise_descriptor_limit,
    say,
)

from supervisor import Bundle, Runtime, Supervisor, open_supervisor
from supervisor.cgroups import Hierarchies

_STAGE = "SUPERVISOR_BENCHMARK_STAGE"
_SOURCE = Path(__file__).with_name("standin.c")
_SECONDS = 25.0
_QUICK_SECONDS = 3.0

Measure = Callable[["Stage"], Coroutine[Any, Any, list[Row]]]


@attrs.define(kw_only=True)
class Stage:
    """What a benchmark needs.

    Attributes:
        name: the benchmark's name.
        options: the command line's options.
        directory: the directory for all files; in memory, as /run is, where runtimes keep state.
        cgroup_parent: the parent cgroup of all containers.
        runtimes: the requested real runtimes that can run here.
        absent: what can't be measured here, and why.
    """

    name: str
    options: argparse.Namespace
    directory: Path
    cgroup_parent: str
    runtimes: list[str]
    absent: dict[str, str]

    @property
    def seconds(self) -> float:
        """For how many seconds the ways take turns at most, for one row."""
        return _QUICK_SECONDS if self.options.quick else _SECONDS

    def rounds(self, full: int, quick: int) -> int:
        """Return how many turns each way has."""
        return self.options.rounds or (quick if self.options.quick else full)

    def containers(self, full: int, quick: int) -> int:
        """Return how many containers to make."""
        return self.options.containers or (quick if self.options.quick else full)

    def open(
        self, runtime: Runtime, root: str = "root", **options: Any
    ) -> AbstractAsyncContextManager[Supervisor]:
        """Open a supervisor on a durable root, which the clean-up removes."""
        return open_supervisor(
            self.directory / root, runtime=runtime, cgroup_parent=self.cgroup_parent, **options
        )

    def bundle(self, program: str) -> Bundle:
        """Return a bundle that runs one of the programs of ``standin.c``."""
        path = self.directory / f"bundle-{program}"
        if not path.exists():
            Bundle.from_rootfs(self.rootfs, [f"/{program}"], path=path)
        return Bundle.load(path)

    @property
    def rootfs(self) -> Path:
        """A root filesystem with only the programs of ``standin.c``."""
        path = self.directory / "rootfs"
        if not path.exists():
            path.mkdir()
            compile_static(path / "standin", _SOURCE)
            for name in ("true", "stamp", "idle"):
                (path / name).symlink_to("standin")
        return path

    @property
    def standin(self) -> Runtime:
        """A stand-in for a runtime, which makes a thousand containers in seconds."""
        return Runtime(path=str(self.rootfs / "standin"))

    def all_runtimes(self) -> dict[str, Runtime]:
        """Return the real runtimes, by name."""
        return {name: Runtime.find(name) for name in self.runtimes}


def compile_static(
    program: Path,
    *sources: Path,
    flags: Iterable[str] = ("-O2",),
    compiler: str | None = None,
) -> None:
    """Compile a static program; by default with musl, if installed."""
    compiler = compiler or next(filter(shutil.which, ("musl-gcc", "cc", "gcc", "clang")), None)
    if compiler is None:
        raise SystemExit("there is no C compiler: apt-get install musl-tools")
    command = [compiler, "-static", *flags, "-o", str(program), *map(str, sources)]
    subprocess.run(command, check=True)


async def populate(
    sup: Supervisor, bundle: Bundle, numbers: Iterable[int], *, prefix: str = "idle"
) -> None:
    """Create and start many containers, twice as many at once as there are processors."""

    async def one(number: int) -> None:
        box = await sup.create(f"{prefix}-{number}", bundle)
        await box.start()

    await _all_of(one, numbers)


async def depopulate(sup: Supervisor, ids: Iterable[str] | None = None) -> None:
    """Kill and delete containers; by default all."""

    async def one(id: str) -> None:
        await sup[id].delete(force=True)

    await _all_of(one, list(sup) if ids is None else ids)


async def _all_of(work: Callable[[Any], Coroutine[Any, Any, None]], items: Iterable[Any]) -> None:
    limiter = trio.CapacityLimiter(2 * (os.cpu_count() or 1))

    async def one(item: Any) -> None:
        async with limiter:
            await work(item)

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(one, item)


@contextlib.asynccontextmanager
async def populated(
    stage: Stage, count: int, *, runtime: Runtime | None = None, root: str = "root"
) -> AsyncIterator[Supervisor]:
    """Open a supervisor with ``count`` idle containers, which are deleted at the end."""
    async with stage.open(runtime or stage.standin, root) as sup:
        await populate(sup, stage.bundle("idle"), range(count))
        try:
            yield sup
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                await depopulate(sup)


# ---- the program ----------------------------------------------------------------------------


def perform(
    measure: Measure,
    *,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    show: Callable[[list[Row]], str] = text_table,
) -> None:
    """Run a benchmark: measure, print the rows, and write JSON if requested."""
    main = sys.modules["__main__"]
    parser = argparse.ArgumentParser(
        description=main.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_arguments(parser)
    if add_arguments is not None:
        add_arguments(parser)
    options = parser.parse_args()
    told = os.environ.pop(_STAGE, None)
    if told is None:
        sys.exit(_watch_over(options))
    name = Path(sys.argv[0]).stem
    _play(name, options, json.loads(told), measure, show)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer containers")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file")
    parser.add_argument("--rounds", type=int, help="how many turns each way has")
    parser.add_argument("--containers", type=int, help="how many containers to make")
    parser.add_argument(
        "--runtime", action="append", help="the runtime to measure (default: crun and runc)"
    )
    parser.add_argument("--directory", default=memory, help="where to put files (%(default)s)")


def _watch_over(options: argparse.Namespace) -> int:
    """Start the program a second time, wait, and remove everything that is left."""
    become_subreaper()
    directory = tempfile.mkdtemp(prefix=f"ts-bench-{os.getpid()}-", dir=options.directory)
    os.chmod(directory, 0o711)  # a user namespace's root must be able to pass through
    cgroup = f"/{os.path.basename(directory)}"
    told = {"directory": directory, "cgroup_parent": cgroup, "parent": os.getpid()}
    command = [
        *private_view(options.runtime or ["crun", "runc"]),
        *(sys.executable, *sys.argv),
    ]
    try:
        program = subprocess.Popen(command, env={**os.environ, _STAGE: json.dumps(told)})
        # A terminal's Ctrl-C reaches both of us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: program.terminate())
        return program.wait() & 0xFF
    finally:
        _end_processes()
        for path in Hierarchies.discover().directories(cgroup):
            _remove_cgroup(path)
        shutil.rmtree(directory, ignore_errors=True)


def _play(
    name: str,
    options: argparse.Namespace,
    told: Mapping[str, Any],
    measure: Measure,
    show: Callable[[list[Row]], str],
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    end_with_parent(told["parent"])
    become_subreaper()
    raise_descriptor_limit()
    runtimes, absent = able(options.runtime or ["crun", "runc"])
    stage = Stage(
        name=name,
        options=options,
        directory=Path(told["directory"]),
        cgroup_parent=told["cgroup_parent"],
        runtimes=runtimes,
        absent=absent,
    )
    begin = time.monotonic()
    try:
        rows = trio.run(measure, stage)
    except KeyboardInterrupt:
        sys.exit(130)
    seconds = time.monotonic() - begin
    for what, why in stage.absent.items():
        say(f"{name}: without {what} ({why})")
    print(show(rows))
    if options.json:
        answer = {
            "machine": describe(),
            "seconds": {name: round(seconds, 1)},
            "absent": stage.absent,
            "rows": [row.to_json() for row in rows],
        }
        Path(options.json).write_text(json.dumps(answer, indent=1) + "\n")


def _end_processes() -> None:
    """Kill and reap all descendants that are left."""
    while left := processes_below(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _remove_cgroup(directory: str) -> None:
    """Remove a cgroup without processes, and the cgroups inside."""
    for path, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
