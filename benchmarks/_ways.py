"""The ways without this library: a runtime's bare calls, from a loop.

`BareLoop` is the floor: only the calls, one after the other, each waited for. `AsyncioLoop` makes
the same calls from the tasks of an event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from _figures import BARE, OURS, Target
from _stage import Stage
from _turns import Way

from supervisor import Bundle, Runtime, Supervisor
from supervisor.bundle import content_of

_CRUN_MS = 1.5
_TIMES = 1.05
_QUIET: Final = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
}


class Bare:
    """A bundle and a runtime's state directory, and the command lines for them."""

    kind = "bare"

    def __init__(self, stage: Stage, runtime: Runtime, program: str = "true") -> None:
        prefix = f"{self.kind}-{runtime.name}-"
        self._place = Path(tempfile.mkdtemp(prefix=prefix, dir=stage.directory))
        self._place.chmod(0o711)
        self._cgroup = f"{stage.cgroup_parent}/{self.kind}"
        self._spec = stage.bundle(program)
        self._head = [runtime.path, *runtime.args, "--root", str(self._place / "state")]
        self._ids = (f"{self.kind}-{number}" for number in itertools.count())

    def new(self) -> tuple[str, Path]:
        """Return a new container's id and bundle, which isn't measured: users have a bundle."""
        id = next(self._ids)
        bundle = self._place / id
        bundle.mkdir()
        spec = content_of(self._spec).derive(cgroup=f"{self._cgroup}-{id}")
        (bundle / "config.json").write_text(json.dumps(spec))
        return id, bundle

    def create(self, id: str, bundle: Path) -> list[str]:
        """Return the command line that creates a container."""
        pid_file = str(bundle / "pid")
        return [*self._head, "create", "--bundle", str(bundle), "--pid-file", pid_file, id]

    def call(self, *words: str) -> list[str]:
        """Return any other command line."""
        return [*self._head, *words]

    def begin(self, id: str, bundle: Path, *, output: IO[bytes] | None = None) -> int:
        """Create and start a container; return the pid, which we have to reap."""
        _run(self.create(id, bundle), **({} if output is None else {"stdout": output}))
        pid = int((bundle / "pid").read_text())
        _run(self.call("start", id))
        return pid


class BareLoop(Bare):
    """Only the runtime's calls; usable from several threads."""

    kind = "loop"

    def lifecycle(self, prepared: tuple[str, Path]) -> None:
        """Create, start, wait, delete."""
        id, bundle = prepared
        pid = self.begin(id, bundle)
        wait_for(pid)
        _run(self.call("delete", id))

    def exec(self, id: str) -> None:
        """Run `true` in a running container."""
        _run(self.call("exec", id, "/true"))


class AsyncioLoop(Bare):
    """The same calls from asyncio, which waits for the container's end with a pidfd."""

    kind = "asyncio"

    def __init__(self, stage: Stage, runtime: Runtime, program: str = "true") -> None:
        super().__init__(stage, runtime, program)
        self._loop = asyncio.new_event_loop()

    def lifecycle(self, prepared: tuple[str, Path]) -> None:
        """Create, start, wait, delete."""
        self._loop.run_until_complete(self.one(*prepared))

    def many(self, prepared: list[tuple[str, Path]], at_once: int) -> list[float]:
        """Run many lifecycles, ``at_once`` at a time; return the seconds that each took."""
        return self._loop.run_until_complete(self._many(prepared, at_once))

    async def _many(self, prepared: list[tuple[str, Path]], at_once: int) -> list[float]:
        todo, took = iter(prepared), []

        async def worker() -> None:
            for id, bundle in todo:
                begin = time.perf_counter()
                await self.one(id, bundle)
                took.append(time.perf_counter() - begin)

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return took

    async def one(self, id: str, bundle: Path) -> None:
        """Create, start, wait, delete, beside other tasks."""
        await self._run(self.create(id, bundle))
        pid = int((bundle / "pid").read_text())
        await self._run(self.call("start", id))
        await self.wait(pid)
        await self._run(self.call("delete", id))

    async def wait(self, pid: int) -> None:
        """Wait for an orphan that became our child."""
        ended = self._loop.create_future()
        fd = os.pidfd_open(pid)
        try:
            self._loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))
            await ended
        finally:
            self._loop.remove_reader(fd)
            os.close(fd)
        wait_for(pid)

    def exec(self, id: str) -> None:
        """Run `true` in a running container."""
        self._loop.run_until_complete(self._run(self.call("exec", id, "/true")))

    def close(self) -> None:
        """Close the event loop."""
        self._loop.close()

    async def _run(self, command: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(*command, **_QUIET)
        if await process.wait():
            raise RuntimeError(f"{' '.join(command)}: status {process.returncode}")


async def lifecycle(sup: Supervisor, id: str, bundle: Bundle) -> None:
    """Create, start, wait, delete with this library."""
    box = await sup.create(id, bundle)
    await box.start()
    status = await box.wait()
    if int(status) != 0:
        raise RuntimeError(f"{OURS}: {status}")
    await box.delete()


def allowed(runtime: str, floor: float) -> Target:
    """Return the target for one lifecycle or exec; ``floor`` is the bare loop's figure in ms."""
    if runtime == "crun":
        return Target(f"{BARE} + {_CRUN_MS} ms", floor + _CRUN_MS)
    return Target(f"{_TIMES} × {BARE}", floor * _TIMES)


def bare_way(loop: Bare, work: Callable[..., None]) -> Way:
    """Return the way of a bare loop; the bundle is made before the clock starts."""

    async def way() -> float:
        prepared = loop.new()
        begin = time.perf_counter()
        work(prepared)
        return (time.perf_counter() - begin) * 1e3

    return way


def wait_for(pid: int) -> None:
    """Wait for an orphan that became our child, and must exit with 0."""
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError(f"process {pid} ended with wait status {status}")


def _run(command: list[str], **streams: Any) -> None:
    subprocess.run(command, check=True, **{**_QUIET, **streams})
