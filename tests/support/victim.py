"""A supervising program that a test kills: it opens a supervisor, does the given actions, and
waits."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Bundle, Deadlines, LogFile, Runtime, Supervisor, open_supervisor
from tests.support.forker import Forker


class Victims:
    """Makes victims."""

    def __init__(self, forker: Forker) -> None:
        self._forker = forker

    @contextlib.contextmanager
    def __call__(
        self,
        runtime: Runtime,
        cgroup_parent: str,
        root: Path | None,
        *,
        temporary: Path | None = None,
        **what: Any,
    ) -> Iterator[int]:
        """Run a victim until ready; give the pid; SIGKILL the victim at the end of the block.

        Args:
            temporary: the directory for its temporary files.
            what: ``containers`` ({id: bundle path}), ``started`` (ids), ``execs`` ({id: [args]}),
                ``stdin``, ``stdout`` (as for create), ``log`` (the arguments of a `LogFile` for
                stdout), ``terminal``, ``say_before`` (say ready before anything is created),
                ``fork`` (fork a child that lives on).
        """
        told = {
            "runtime": [runtime.path, *runtime.args],
            "runtime_root": runtime.root,
            "cgroup_parent": cgroup_parent,
            "root": None if root is None else str(root),
            **what,
        }
        with self._forker.program(f"{__name__}:live", told, temporary=temporary) as program:
            program.await_line("ready")
            yield program.pid


@pytest.fixture
def victim(forker: Forker) -> Victims:
    """Make a supervising program that is killed: ``with victim(runtime, parent, root): ...``."""
    return Victims(forker)


async def live(told: dict[str, Any]) -> None:
    """Be a victim."""
    path, *args = told["runtime"]
    async with open_supervisor(
        told["root"],
        runtime=Runtime(path=path, args=tuple(args), root=told["runtime_root"]),
        cgroup_parent=told["cgroup_parent"],
        deadlines=Deadlines(create=60),
        leash=told.get("leash"),
    ) as sup:
        if told.get("say_before"):
            print("ready", flush=True)
        await _populate(sup, told)
        if told.get("fork") and os.fork() == 0:
            signal.pause()
        print("ready", flush=True)
        await trio.sleep_forever()


async def _populate(sup: Supervisor, told: dict[str, Any]) -> None:
    for id, bundle in told.get("containers", {}).items():
        box = await sup.create(
            id,
            Bundle.load(bundle),
            stdin=told.get("stdin"),
            stdout=LogFile(**told["log"]) if "log" in told else told.get("stdout"),
            terminal=told.get("terminal", False),
        )
        if id in told.get("started", ()):
            await box.start()
            for name, args in told.get("execs", {}).items():
                await box.exec(args, id=name)
