"""A supervising program that a test kills: ``python -m tests.support.victim JSON``.

The program opens a supervisor, does the given actions, says ``ready`` and waits for its death.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from supervisor import Bundle, Deadlines, LogFile, Runtime, Supervisor, open_supervisor
from supervisor.directories._temporary import PLACE
from tests.support.leaks import STRANGERS, descendants


@contextlib.contextmanager
def victim(
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
            stdout), ``terminal``, ``say_before`` (say ready before anything is created), ``fork``
            (fork a child that lives on).
    """
    told = {
        "runtime": [runtime.path, *runtime.args],
        "runtime_root": runtime.root,
        "cgroup_parent": cgroup_parent,
        "root": None if root is None else str(root),
        **what,
    }
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.support.victim", json.dumps(told)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, **({} if temporary is None else {PLACE: str(temporary)})},
        text=True,
    )
    try:
        assert program.stdout is not None
        line = program.stdout.readline().strip()
        assert line == "ready", f"the victim said {line!r}"
        yield program.pid
    finally:
        program.send_signal(signal.SIGSTOP)  # so that no child is missed
        STRANGERS.update(descendants(program.pid))
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


async def _live(told: dict[str, Any]) -> None:
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


if __name__ == "__main__":
    trio.run(_live, json.loads(sys.argv[1]))
