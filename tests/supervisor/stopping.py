"""A supervising program to be stopped while it operates: ``-m tests.supervisor.stopping JSON``.

The runtime has done its work, and then doesn't return while a gate is there. The program says
``under way`` when one of each operation waits for the gate, and prints a JSON object when all have
ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from supervisor import Bundle, Container, Runtime, Supervisor, open_supervisor
from tests.support.containers import hurried
from tests.support.runtimes import Choice

SECONDS = 1.5
"""Each deadline, while the program is stopped."""

LINGERING = ("create", "start", "exec", "delete")


def lingering(choice: Choice, path: Path) -> Path:
    """Make a runtime that does its work, and then stays while ``gate`` is there."""
    gate = path.parent / "gate"
    path.write_text(
        f'#!/bin/sh\n{shutil.which(choice.name)} "$@"\nstatus=$?\n'
        f'for verb in {" ".join(LINGERING)}; do case " $* " in *" $verb "*)\n'
        f"[ ! -e {gate} ] || : >{gate}.$verb\n"
        f"while [ -e {gate} ]; do sleep 0.01; done;; esac; done\n"
        "exit $status\n"
    )
    path.chmod(0o755)
    return gate


async def _told(what: Callable[[], Awaitable[object]], found: dict[str, str], name: str) -> None:
    try:
        found[name] = str(await what())
    except Exception as error:
        found[name] = repr(error)


async def _operate(sup: Supervisor, boxes: dict[str, Container], told: dict[str, Any]) -> None:
    """Have one of each operation under way, with short deadlines; return how they ended."""
    found: dict[str, str] = {}

    async def ended() -> object:
        stopped = await boxes["stop"].stop(SECONDS)
        return stopped.status.code, stopped.escalated

    async def ran() -> object:
        return (await boxes["run"].run(["sleep", "1"], deadline=SECONDS)).status.code

    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: sup.create("create", told["bundle"]),
        "start": boxes["start"].start,
        "exec": lambda: boxes["exec"].exec(["true"]),
        "delete": lambda: boxes["delete"].delete(force=True),
        "stop": ended,
        "run": ran,
    }
    Path(told["gate"]).touch()
    async with trio.open_nursery() as nursery:
        for name, what in operations.items():
            nursery.start_soon(_told, what, found, name)
        while not all(os.path.exists(f"{told['gate']}.{verb}") for verb in LINGERING):
            await trio.sleep(0.002)
        print("under way", flush=True)
    print(json.dumps(found), flush=True)


async def main() -> None:
    """Run all operations, as the arguments say."""
    told = json.loads(sys.argv[1])
    options = {"cgroup_parent": told["cgroup_parent"]}
    runtime = Runtime(path=told["runtime"])
    async with contextlib.AsyncExitStack() as stack:
        sup = await stack.enter_async_context(open_supervisor(runtime=runtime, **options))
        bundle = Bundle.load(told["bundle"])
        boxes = {}
        for name in ("start", "exec", "delete", "stop", "run"):
            box = await stack.enter_async_context(await sup.create(name, bundle))
            if name != "start":
                await box.start()
            boxes[name] = box
        short = dict.fromkeys(("create", "start", "call", "cleanup", "kill", "shim"), SECONDS)
        for one in (sup, *boxes.values()):
            stack.enter_context(hurried(one, **short))
        await _operate(sup, boxes, told)


if __name__ == "__main__":
    trio.run(main)
