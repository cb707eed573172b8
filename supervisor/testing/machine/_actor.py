"""Actor: a supervising program that takes commands over a socket, one JSON line at a time.

Each command is a list: the command's name, then the arguments. The answer is ``{"ok": ...}``, or
``{"error": [names of the exception's classes], "text": ...}``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import attrs
import trio

from ..._open import open_supervisor
from ..._supervisor import Supervisor
from ...bundle import Bundle
from ...container import Container
from ...process import Process
from ...runtime import Runtime
from ...stdio import PIPE, StdioArgument
from ...values import Deadlines, ExitStatus

_WAIT_SECONDS = 30


@attrs.define
class Actor:
    """The program's side of one open supervisor; see `SupervisorMachine`.

    A method ``do_NAME`` is the command NAME. Arguments and result are JSON values. An exception is
    reported by the names of the exception's classes. A subclass may add commands.

    Attributes:
        supervisor: the supervisor.
        bundle: the bundle of all containers.
        boxes: every container that the supervisor ever had, by id: a broken container can still be
            deleted.
        stdin: the ``stdin`` of all processes.
    """

    stdin: ClassVar[StdioArgument] = PIPE

    supervisor: Supervisor
    bundle: Bundle
    boxes: dict[str, Container] = attrs.field(factory=dict)

    async def obey(self, command: Sequence[Any]) -> Any:
        """Run one command; return the result."""
        name, *arguments = command
        return await getattr(self, f"do_{name}")(*arguments)

    def box(self, id: str) -> Container:
        """Return a container by id."""
        self.boxes.update(self.supervisor)
        return self.boxes[id]

    def process(self, id: str, process: str) -> Process:
        """Return a process by the container's id and the process's id."""
        return self.box(id).processes[process]

    async def do_create(self, id: str, args: list[str]) -> None:
        """Create a container."""
        self.boxes[id] = await self.supervisor.create(id, self.bundle, args=args, stdin=self.stdin)

    async def do_start(self, id: str) -> None:
        """Start a container."""
        await self.box(id).start()

    async def do_exec(self, id: str, process: str, args: list[str]) -> None:
        """Run a further program in a container."""
        await self.box(id).exec(args, id=process, stdin=self.stdin)

    async def do_signal(self, id: str, process: str, number: int) -> None:
        """Send a signal to a process."""
        self.process(id, process).send_signal(number)

    async def do_kill(self, id: str) -> None:
        """Kill everything in a container."""
        self.box(id).kill()

    async def do_stop(self, id: str, grace: float) -> bool:
        """Stop a container; return whether the container had to be killed."""
        return (await self.box(id).stop(grace=grace)).escalated

    async def do_delete(self, id: str, force: bool) -> None:
        """Delete a container."""
        await self.box(id).delete(force=force)

    async def do_wait(self, id: str, process: str) -> dict[str, Any]:
        """Wait for the end of a process; return the exit status."""
        with trio.fail_after(_WAIT_SECONDS):
            return _told(await self.process(id, process).wait())

    async def do_adopt(self) -> list[str]:
        """Adopt the containers without an owner; return the ids."""
        return [box.id for box in await self.supervisor.adopt()]

    async def do_look(self) -> dict[str, Any]:
        """Return what the supervisor shows."""
        return {
            "containers": {id: _seen(box) for id, box in self.supervisor.items()},
            "broken": sorted(self.supervisor.broken),
        }


def _seen(box: Container) -> dict[str, Any]:
    return {
        "state": box.state.value,
        "foreign": box.foreign,
        "processes": {
            id: None if process.status is None else _told(process.status)
            for id, process in box.processes.items()
        },
    }


def _told(status: ExitStatus) -> dict[str, Any]:
    return {
        "cause": status.cause.value,
        "source": status.source.value,
        "code": status.code,
        "signal": status.signal,
        "why": status.why,
    }


def descriptors() -> dict[int, str]:
    """Return the target of each of our descriptors."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor that the listing used
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


async def _answer(stream: trio.SocketStream, what: Any) -> None:
    await stream.send_all(json.dumps(what).encode() + b"\n")


async def _lines(stream: trio.SocketStream) -> AsyncGenerator[Any, None]:
    pending = b""
    async for chunk in stream:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


async def _try(actor: Actor, command: Sequence[Any]) -> dict[str, Any]:
    try:
        return {"ok": await actor.obey(command)}
    except Exception as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        return {"error": names, "text": f"{error}\n{traceback.format_exc()}"}


def class_of(name: str) -> type[Actor]:
    """Return a class of actors by name, ``MODULE:CLASS``; its module is imported."""
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    cls: type[Actor] = found
    return cls


async def _live(fd: int, told: dict[str, Any]) -> None:
    path, *args = told["runtime"]
    stream = trio.SocketStream(trio.socket.fromfd(fd, 1, 1))
    os.close(fd)
    commands = _lines(stream)
    before = descriptors()
    try:
        async with open_supervisor(
            told["root"],
            runtime=Runtime(path=path, args=tuple(args), root=told["runtime_root"]),
            cgroup_parent=told["cgroup_parent"],
            deadlines=Deadlines(**told["deadlines"]),
        ) as supervisor:
            actor = class_of(told["actor"])(supervisor, Bundle.load(told["bundle"]))
            await _answer(stream, {"ok": "open"})
            async for command in commands:
                if command == ["close"]:
                    break
                await _answer(stream, await _try(actor, command))
        left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what}
        await _answer(stream, {"ok": left})
    finally:
        await commands.aclose()


def main(fd: int, **told: Any) -> None:
    """Open a supervisor, and run commands until ``close``, or until the socket is closed."""
    # If Hypothesis is imported, Trio registers a random generator there, and Hypothesis warns.
    warnings.filterwarnings("ignore", message=".*register_random")
    try:
        trio.run(_live, fd, told)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
