"""A supervising program that kills itself.

The program prepares what the operation needs, then does the operation, and sends itself SIGKILL at
the n-th `Point` that the operation reaches. The program prints the name of each point that it
reaches.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from supervisor import PIPE, Bundle, Container, Runtime, Supervisor, open_supervisor
from supervisor.observers import Observation, Point

SLEEP = ["sleep", "600"]
SEVEN = ["sh", "-c", "exit 7"]


class Fuse:
    """Kills this program at the n-th point, once the fuse is lit."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.lit = False

    def observe(self, seen: Observation) -> None:
        """Count a point."""
        if not self.lit or not isinstance(seen, Point):
            return
        print(seen.name, flush=True)
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def create(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Create a container."""
    fuse.lit = True
    await sup.create("a", Bundle.load(told["bundle"]), args=SLEEP, stdin=PIPE, stdout=PIPE)


async def start(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Start a container that was created."""
    box = await sup.create("a", Bundle.load(told["bundle"]), args=SLEEP)
    fuse.lit = True
    await box.start()


async def run(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Start a container that ends at once, and wait for the end."""
    box = await sup.create("a", Bundle.load(told["bundle"]), args=SEVEN)
    fuse.lit = True
    await box.start()
    await box.wait()


async def _running(sup: Supervisor, told: dict[str, Any]) -> Container:
    box = await sup.create("a", Bundle.load(told["bundle"]), args=SLEEP)
    await box.start()
    return box


async def exec(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Run a further program in a container, and wait for the end."""
    box = await _running(sup, told)
    fuse.lit = True
    process = await box.exec(SEVEN, id="e", stdout=PIPE)
    await process.wait()


async def stop(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Stop a container whose program ignores the signal."""
    box = await _running(sup, told)
    fuse.lit = True
    await box.stop(grace=0.05)


async def delete(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Delete a running container that has an exec."""
    box = await _running(sup, told)
    await box.exec(SLEEP, id="e")
    fuse.lit = True
    await box.delete(force=True)


async def adopt(sup: Supervisor, told: dict[str, Any], fuse: Fuse) -> None:
    """Adopt the containers that are there; opening has adopted them."""


OPERATIONS: dict[str, Callable[[Supervisor, dict[str, Any], Fuse], Awaitable[None]]] = {
    function.__name__: function for function in (create, start, run, exec, stop, delete, adopt)
}


@contextlib.asynccontextmanager
async def _opened(told: dict[str, Any], fuse: Fuse) -> AsyncIterator[Supervisor]:
    path, *args = told["runtime"]
    fuse.lit = told["operation"] == "adopt"
    async with open_supervisor(
        told["root"],
        runtime=Runtime(path=path, args=tuple(args)),
        cgroup_parent=told["cgroup_parent"],
        leash=told.get("leash", False),
        _observer=fuse.observe,
    ) as sup:
        yield sup


async def main(told: dict[str, Any]) -> None:
    """Do the operation ``operation``, and die at the point ``kill_at``."""
    fuse = Fuse(told["kill_at"])
    async with _opened(told, fuse) as sup:
        await OPERATIONS[told["operation"]](sup, told, fuse)
        fuse.lit = False
