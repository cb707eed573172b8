"""Many lifecycles, some at a time, with faults among them: ``python -m tests.crashes.soak``.

At the end descriptors, memory, tasks, processes, cgroups, mounts and directories are what they
were, and every exit status was the true one, or unknown where it couldn't be known.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from supervisor import (
    DEVNULL,
    PIPE,
    Bundle,
    Container,
    ExitStatus,
    Process,
    Runtime,
    Source,
    Supervisor,
    open_supervisor,
)
from supervisor.testing import LeakCheck, leak_check
from tests.support import leaks
from tests.support.runtimes import choose

_PR_SET_CHILD_SUBREAPER = 36
_RSS_BYTES: Final = 16 << 20
_WARM_UP: Final = 24
_PROGRAMS = ("sh", "true", "cat", "sleep")


class Wrong(Exception):
    """A check failed."""


@attrs.frozen
class Plan:
    """What is asked for.

    Attributes:
        seconds: for how long; ignored with a ``count``.
        count: how many containers that run ``true``, or None for lifecycles at random.
        seed: of the random choices.
        at_once: how many lifecycles are under way at a time.
        runtime: the runtime's name.
    """

    seconds: float
    count: int | None
    seed: int
    at_once: int
    runtime: str


@attrs.define
class Soak:
    """One run.

    Attributes:
        plan: what is asked for.
        supervisor: what is soaked.
        bundle: runs a shell.
        random: makes the choices.
        counted: how often what came about.
    """

    plan: Plan
    supervisor: Supervisor
    bundle: Bundle
    random: Random
    counted: Counter[str] = attrs.field(factory=Counter)
    serial: int = 0

    async def run(self) -> None:
        """Keep so many lifecycles going until the time is up, or all are done."""
        end = time.monotonic() + self.plan.seconds
        async with trio.open_nursery() as nursery:
            for _ in range(self.plan.at_once):
                nursery.start_soon(self._go_on, end)

    async def _go_on(self, end: float) -> None:
        while self.serial < self.plan.count if self.plan.count else time.monotonic() < end:
            self.serial += 1
            seed = self.random.getrandbits(64)
            try:
                await self.one(f"s{self.serial}", Random(seed))
            except BaseException as error:
                error.add_note(f"in lifecycle {self.serial}, whose own seed is {seed}")
                raise

    async def one(self, id: str, choices: Random) -> None:
        """Run one container, from create to delete."""
        if self.plan.count is not None:
            await self._true(id)
            return
        code = choices.randrange(256)
        script = f"trap 'exit {code}' TERM; while read line; do echo $line; done; exit {code}"
        box = await self.supervisor.create(
            id, self.bundle, args=["/bin/sh", "-c", script], stdin=PIPE, stdout=PIPE
        )
        async with box:
            if choices.random() < 0.05:
                return  # deleted as created
            await box.start()
            for _ in range(choices.randrange(3)):
                await self._exec(box, choices)
            await self._stream(box, choices)
            how = choices.choice([self._end, self._stop, self._kill, self._kill_shim, self._drop])
            await how(box, code)
            self.counted["lifecycles"] += 1

    async def _true(self, id: str) -> None:
        box = await self.supervisor.create(id, self.bundle, args=["/bin/true"])
        async with box:
            await box.start()
            self._expect(await box.wait(), code=0)

    # ---- while the container runs --------------------------------------------------------

    async def _exec(self, box: Container, choices: Random) -> None:
        code, lines = choices.randrange(256), choices.randrange(2000)
        script = f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); done; exit {code}"
        fault = choices.choice([None, None, None, "kill", "shim", "stop"])
        if fault is None:
            job = await box.exec(["/bin/sh", "-c", script], stdout=PIPE, stderr=DEVNULL)
            told = await _read(job)
            if told.split() != [b"%d" % n for n in range(lines)]:
                raise Wrong(f"{lines} lines were written, and others read: {told!r}")
            self._expect(await job.wait(), code=code)
            return
        job = await box.exec(["/bin/sleep", "600"])
        if fault == "kill":
            job.kill()
            self._expect(await job.wait(), number=signal.SIGKILL)
        elif fault == "shim":
            os.kill(self._shim_of(job), signal.SIGKILL)
            self._expect_lost(await job.wait())
        else:
            shim = self._shim_of(job)
            os.kill(shim, signal.SIGSTOP)
            await trio.sleep(choices.random() / 100)
            os.kill(shim, signal.SIGCONT)
            job.kill()
            self._expect(await job.wait(), number=signal.SIGKILL)

    def _shim_of(self, process: Process) -> int:
        path = Path(self.supervisor.root, process.container, process.id, "shim")
        return int(path.read_text().split()[0])

    async def _stream(self, box: Container, choices: Random) -> None:
        assert box.stdin is not None and box.stdout is not None
        sent = b"".join(b"%d\n" % choices.getrandbits(64) for _ in range(choices.randrange(200)))
        got = b""
        await box.stdin.send_all(sent)
        while len(got) < len(sent):
            got += await box.stdout.receive_some()
        if got != sent:
            raise Wrong(f"{box.id} got {len(sent)} bytes and gave back others")

    # ---- how the container ends ----------------------------------------------------------

    async def _end(self, box: Container, code: int) -> None:
        assert box.stdin is not None
        await box.stdin.aclose()
        self._expect(await box.wait(), code=code)

    async def _stop(self, box: Container, code: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_stdin_soon, box)  # a shell may finish a read first
            stopped = await box.stop(grace=20)
        self._expect(stopped.status, code=code)

    async def _close_stdin_soon(self, box: Container) -> None:
        assert box.stdin is not None
        await trio.sleep(0.01)
        await box.stdin.aclose()

    async def _kill(self, box: Container, code: int) -> None:
        box.kill()
        self._expect(await box.wait(), number=signal.SIGKILL)

    async def _kill_shim(self, box: Container, code: int) -> None:
        os.kill(self._shim_of(box.init), signal.SIGKILL)
        self._expect_lost(await box.wait())

    async def _drop(self, box: Container, code: int) -> None:
        """Leave the container running for the delete."""

    # ---- what is expected ----------------------------------------------------------------

    def _expect(
        self, status: ExitStatus, *, code: int | None = None, number: int | None = None
    ) -> None:
        if (status.source, status.code, status.signal) != (Source.SHIM, code, number):
            raise Wrong(f"ended {status} by the {status.source}, not code {code}, signal {number}")
        self.counted["exact statuses"] += 1

    def _expect_lost(self, status: ExitStatus) -> None:
        if status.source is Source.SHIM or status.signal not in (signal.SIGKILL, None):
            raise Wrong(f"ended {status} by the {status.source}, but its shim was killed")
        known = status.source is Source.KERNEL
        self.counted["exact statuses by the kernel" if known else "unknown statuses"] += 1


async def _read(process: Process) -> bytes:
    assert process.stdout is not None
    async with process.stdout:
        return b"".join([chunk async for chunk in process.stdout])


# ---- before and after -----------------------------------------------------------------------


@attrs.frozen
class Level:
    """What there is at one time."""

    tasks: int
    rss_bytes: int

    @classmethod
    def take(cls) -> Level:
        """Look around."""
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(trio.lowlevel.current_statistics().tasks_living, rss)


async def _settled(before: Level, check: LeakCheck) -> list[str]:
    """Return the differences of the machine from before, after some time for the machine and our
    tasks to settle."""
    deadline = time.monotonic() + leaks.PATIENCE_SECONDS
    while True:
        now = Level.take()
        found = [
            *map(str, check.left()),
            *([] if now.tasks == before.tasks else [f"{now.tasks - before.tasks} more tasks"]),
        ]
        if not found or time.monotonic() > deadline:
            break
        await trio.sleep(0.05)
    grown = now.rss_bytes - before.rss_bytes
    print(f"memory: {before.rss_bytes >> 10} KiB after warming up, {grown >> 10:+} KiB since")
    if grown > _RSS_BYTES:
        found.append(f"memory grew by {grown >> 20} MiB")
    return found


async def soak(plan: Plan, workdir: str) -> list[str]:
    """Do as planned; return what is wrong at the end."""
    parent = f"/ts-soak-{os.getpid()}-{secrets.token_hex(4)}"
    root = Path(workdir, "root")
    bundle = _bundle(workdir, choose(plan.runtime).real)
    runtime: Runtime = choose(plan.runtime).runtime()
    found: list[str] = []
    try:
        async with open_supervisor(root, runtime=runtime, cgroup_parent=parent) as supervisor:
            choices = Random(plan.seed)
            warm = attrs.evolve(plan, seconds=0.0, count=_WARM_UP)
            await Soak(warm, supervisor, bundle, choices).run()
            check = leak_check(
                cgroup_parent=parent,
                directories=[root],
                mounts_below=[workdir],
                temporary=False,  # other runs have theirs in the same place
                reap=leaks.reap_strangers,
            )
            check.begin()
            before = Level.take()
            run = Soak(plan, supervisor, bundle, choices)
            begun = time.monotonic()
            await run.run()
            seconds = time.monotonic() - begun
            print(
                f"{run.serial} containers in {seconds:.1f} s, {run.serial / seconds:.1f} a second"
            )
            for what, count in sorted(run.counted.items()):
                print(f"{what}: {count}")
            found += await _settled(before, check)
    finally:
        found += leaks.cgroup_left(parent)
    return found


def _bundle(workdir: str, real: bool) -> Bundle:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is not installed (apt-get install busybox-static)")
    rootfs = Path(workdir, "rootfs")
    for name in ("bin", "proc", "dev", "sys", "tmp", "run"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for name in _PROGRAMS:
        (rootfs / "bin" / name).symlink_to("busybox")
    return Bundle.from_rootfs(rootfs, ["/bin/sh"], path=Path(workdir, "bundle"))


def _planned(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=1.0)
    parser.add_argument("--count", type=int, help="so many containers that run `true` instead")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--runtime", default="crun")
    told = parser.parse_args(arguments)
    seed = secrets.randbits(32) if told.seed is None else told.seed
    return Plan(told.minutes * 60, told.count, seed, told.at_once, told.runtime)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; return 0 if all is well."""
    plan = _planned(arguments)
    obstacle = choose(plan.runtime).obstacle
    if obstacle is not None:
        print(obstacle)
        return 2
    print(f"seed {plan.seed}, {plan.at_once} at a time, {plan.runtime}", flush=True)
    # The children of a killed shim become ours, so that we see them.
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    with tempfile.TemporaryDirectory(prefix="ts-soak-") as workdir:
        os.chmod(workdir, 0o711)
        found = trio.run(soak, plan, workdir)
    for what in found:
        print(f"wrong: {what}")
    if plan.count is not None and not found:
        print(f"{plan.count} exact exit statuses, nothing left")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
