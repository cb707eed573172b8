"""Whatever is given for whichever argument works, or is refused by name, and nothing is touched."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

import supervisor as public
from supervisor import (
    LOG,
    Backoff,
    Bundle,
    CheckpointOptions,
    Container,
    ContainerPool,
    Deadlines,
    Fifo,
    IdMap,
    InvalidValue,
    LogFile,
    Mount,
    Process,
    Runtime,
    RuntimeFailed,
    State,
    Supervisor,
    TerminalSize,
    UserNamespace,
    open_supervisor,
    run_container,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.arguments import STRANGE, Named, Table

pytestmark = pytest.mark.runtimes("crun")


def test_values(table: Table) -> None:
    """The values that are made before anything else is refuse bad arguments by name."""
    table.call("LogFile", LogFile)
    table.call("Fifo", Fifo, path="/x")
    table.call("TerminalSize", TerminalSize)
    table.call("Mount", Mount, source="/usr", destination="/x")
    table.call("IdMap", IdMap, container_id=0, host_id=1, size=1)
    table.call("UserNamespace", UserNamespace, uids=[IdMap(0, 1, 1)], gids=[IdMap(0, 1, 1)])
    table.call("Runtime", Runtime, path="/bin/true")
    table.call("Runtime.find", Runtime.find)
    table.call("Deadlines", Deadlines)
    table.call("Backoff", Backoff)
    table.call("CheckpointOptions", CheckpointOptions)


def test_bundles(table: Table, rootfs: Path) -> None:
    """Bundles refuse bad arguments by name, and leave no directory."""
    table.call("Bundle.load", Bundle.load, path="/")
    table.call("Bundle.from_rootfs", Bundle.from_rootfs, rootfs=rootfs, args=["true"])
    table.call("Bundle.from_host", Bundle.from_host, args=["true"])


async def test_open(table: Table, choice: Any, workdir: Path) -> None:
    """A supervisor refuses bad arguments by name."""

    async def attempt(**given: Any) -> None:
        async with open_supervisor(**{"runtime": choice.runtime(), **given}):
            pass

    await table.await_each("open_supervisor", open_supervisor, attempt)


async def test_create(
    table: Table, supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Create refuses bad arguments by name."""
    made = bundle("true")
    async with supervisor(root) as sup:

        async def attempt(**given: Any) -> None:
            box = await sup.create(**{"id": "a", "bundle": made, **given})
            await box.delete(force=True)

        def untouched() -> object:
            there = sorted(name for name in os.listdir(root) if name != ".runtime")
            return there, list(sup), list(sup.broken)

        await table.await_each("create", Supervisor.create, attempt, untouched)

        async def forget(**given: Any) -> None:
            await sup.delete_broken(**given)

        await table.await_each("delete_broken", Supervisor.delete_broken, forget, untouched)
        for value in STRANGE:
            with contextlib.suppress(KeyError, TypeError):  # as of any mapping
                sup[value]


async def test_container(
    table: Table, supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The methods of a container and of a process refuse bad arguments by name."""
    sleeper = bundle("sleep", "600")
    async with supervisor(root) as sup, await sup.create("a", sleeper, stdout=LOG) as box:
        await box.start()

        async def attempt(**given: Any) -> None:
            process = await box.exec(**{"args": ["true"], **given})
            if process.stdout is not None:
                await process.stdout.aclose()
            await process.wait()

        await table.await_each("exec", Container.exec, attempt)

        async def run(**given: Any) -> None:
            await box.run(**{"args": ["true"], **given})

        await table.await_each("run", Container.run, run)
        table.call("send_signal", Named(Container.send_signal, box.send_signal), number=0)
        terminal = await box.exec(["sleep", "600"], terminal=True)
        table.call("resize", Named(Process.resize, terminal.resize), columns=1, rows=1)
        terminal.kill()
        await terminal.wait()
        table.call("logs", Named(Container.logs, box.logs))
        table.call("Process.logs", Named(Process.logs, box.init.logs))
        assert box.state is State.RUNNING


async def test_stop(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A stop refuses bad arguments by name, and sends nothing."""
    fine = {"grace": (0, 1, 1.5, 2**70, math.inf), "ask_with": (1,)}
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        for name, numbers in fine.items():
            for value in STRANGE:
                if name == "grace" and value is None:  # then the bundle's own
                    continue
                if type(value) not in (int, float) or value not in numbers:
                    with pytest.raises(InvalidValue, match=name):
                        await box.stop(**{name: value})
        assert box.status is None


async def test_delete_adopt_checkpoint(
    table: Table, supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """The functions that end, find and checkpoint a container refuse bad arguments by name, and the
    container goes on."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()

        async def delete(**given: Any) -> None:
            if not isinstance(given["force"], bool):
                await box.delete(**given)

        await table.await_each("delete", Container.delete, delete)

        async def adopt(**given: Any) -> None:
            await sup.adopt(**given)

        await table.await_each("adopt", Supervisor.adopt, adopt, lambda: list(sup))

        async def checkpoint(**given: Any) -> None:
            if given.get("leave_running") is False or given.get("path") in ("a", "A=B"):
                return  # the delete may be done
            with contextlib.suppress(RuntimeFailed):  # there is no CRIU
                await box.checkpoint(**{"path": workdir / "image", "leave_running": True, **given})

        await table.await_each("checkpoint", Container.checkpoint, checkpoint)
        assert box.state is State.RUNNING


async def test_run_container(table: Table, supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """`run_container` refuses bad arguments by name."""
    made = bundle("true")
    async with supervisor() as sup:

        async def attempt(**given: Any) -> None:
            given = {"bundle": made, "supervisor": sup, **given}
            if given["supervisor"] is None:
                given["runtime"] = sup.runtime
            await run_container(**given)

        await table.await_each("run_container", run_container, attempt, lambda: list(sup))


async def test_pool(table: Table, choice: Any, bundle: MakeBundle) -> None:
    """The same holds for a pool, and for its takers."""
    made = bundle("true")

    def make(**given: Any) -> None:
        ContainerPool(**{"bundle": made, **given})

    table.call("ContainerPool", Named(ContainerPool, make))
    async with ContainerPool(made, size=1, runtime=choice.runtime()) as pool:

        async def take(**given: Any) -> None:
            async with pool.take(**given):
                pass

        await table.await_each("take", ContainerPool.take, take)

        async def run(**given: Any) -> None:
            await pool.run(**{"check": False, **given})

        await table.await_each("pool.run", ContainerPool.run, run)


_GIVEN = (  # what the library gives; a user makes none
    "Broken",
    "Change",
    "Completed",
    "ContainerView",
    "ExitStatus",
    "Holder",
    "LogRecord",
    "PoolStatistics",
    "ProcessView",
    "Stopped",
    "Bundle",  # made by the three functions above
)


def test_no_class_is_left_out() -> None:
    """Every public class of values is in this file."""
    source = Path(__file__).read_text()
    for name in public.__all__:
        item = getattr(public, name)
        if isinstance(item, type) and attrs.has(item) and name not in _GIVEN:
            assert f'table.call("{name}"' in source, name
