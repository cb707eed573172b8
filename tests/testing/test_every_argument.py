"""`supervisor.testing` refuses impossible arguments by name too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import PIPE, InvalidValue, ProcessEnded, Runtime, RuntimeFailed, testing
from supervisor.testing import (
    SharedPool,
    SupervisorThread,
    TakenContainer,
    fill_memory,
    frozen,
    kill_shim,
    leak_check,
    profile,
    supervised,
    unread,
)
from supervisor.testing.machine import Operation, SupervisorMachine, run_machine
from supervisor.testing.runtimes import Fault, FaultyRuntime, HostRuntime, check_runtime
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.arguments import STRANGE, Named, Table

pytestmark = pytest.mark.runtimes("fake")


def test_values(table: Table) -> None:
    """The values, and a checked block, refuse bad arguments by name."""

    def check(**given: Any) -> None:
        with leak_check(**{"temporary": False, "cgroup_parent": None, **given}):
            pass

    table.call("leak_check", Named(leak_check, check))
    for what in ("hang", "late", "tell", "fail", "no-pid"):
        values = {"late": 1.0, "tell": "/x"}
        table.call("Fault", Fault, what=what, value=values.get(what))
    table.call("HostRuntime", HostRuntime)
    for value in STRANGE:
        with pytest.raises(InvalidValue, match="fault"):
            FaultyRuntime(value)
    table.call("Operation", Operation, verb="start", container="a")
    table.call("Operation", Operation, verb="signal", container="a", signal=1)
    table.call("profile", profile)
    table.call("supervised", supervised, test=lambda: None)


def test_run_machine(table: Table, runtime: Runtime) -> None:
    """A search refuses bad arguments by name, and plays nothing."""

    def run(**given: Any) -> None:
        if None not in (given.get("bundle", 0), given.get("settings", 0)):
            run_machine(**{"machine": SupervisorMachine, "runtime": runtime, **given})

    table.call("run_machine", Named(run_machine, run))


def test_threads(table: Table, bundle: MakeBundle, runtime: Runtime) -> None:
    """A supervisor and a pool in threads, and what a pool gives, refuse bad arguments by name."""
    made = bundle("true")

    def thread(inside: Any) -> None:  # `open_supervisor` checks its own options
        SupervisorThread(inside=inside)

    table.call("SupervisorThread", thread)

    def shared(**given: Any) -> None:
        with SharedPool(**{"bundle": made, "size": 1, "runtime": runtime, **given}):
            pass

    table.call("SharedPool", Named(SharedPool, shared))
    with SharedPool(made, size=1, runtime=runtime) as pool:
        asked = Named(SharedPool.run_sync, pool.run_sync)
        table.call("run_sync", asked, args=["true"], check=False)

        def take(**given: Any) -> None:
            with pool.take(**given):
                pass

        table.call("SharedPool.take", Named(SharedPool.take, take), args=["true"])
        with pool.take(["sleep", "600"], stdin=PIPE) as box:

            def run(**given: Any) -> None:
                with contextlib.suppress(RuntimeFailed):  # there is no such program, or directory
                    box.run(**{"args": ["true"], "check": False, **given})

            table.call("run", Named(TakenContainer.run, run))
            table.call("send_signal", Named(TakenContainer.send_signal, box.send_signal))
            assert box.stdin is not None
            for value in STRANGE:
                if not isinstance(value, bytes):
                    with pytest.raises(TypeError):  # as of any binary file
                        box.stdin.write(value)
            with contextlib.suppress(ProcessEnded):  # signal 1 was sent, a good one
                box.kill()
            table.call("wait", Named(TakenContainer.wait, box.wait))


async def test_harm(table: Table, supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The harm to a container refuses bad arguments by name, and does nothing."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "600"), stdout=PIPE) as box:
            await box.start()

            def entering(
                function: Callable[..., AbstractAsyncContextManager[object]], **good: Any
            ) -> Any:
                async def enter(**given: Any) -> None:
                    async with function(**{**good, **given}):
                        pass

                return enter

            await table.await_each("frozen", frozen, entering(frozen, container=box))
            await table.await_each("unread", unread, entering(unread, process=box))

            async def kill(**given: Any) -> None:
                fine = isinstance(given.get("seconds"), int | float) and given["seconds"] > 0
                if not fine or isinstance(given["seconds"], bool):
                    await kill_shim(**{"process": box, **given})

            await table.await_each("kill_shim", kill_shim, kill)

            async def fill(**given: Any) -> None:
                seconds = given.get("seconds")
                if type(seconds) in (int, float) and seconds > 0:
                    return  # refused for the bundle, which has no limit
                await fill_memory(**{"container": box, **given})

            await table.await_each("fill_memory", fill_memory, fill)
            assert box.status is None


async def test_check_runtime(table: Table, runtime: Runtime) -> None:
    """The checks of a runtime refuse bad arguments by name, and run nothing."""

    async def check(**given: Any) -> None:
        if given.get("only", 0) is not None:  # that is all of them
            await check_runtime(**{"runtime": runtime, "only": [], **given})

    with trio.fail_after(60):
        await table.await_each("check_runtime", check_runtime, check)


async def test_perform(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> None:
    """An operation to perform refuses bad arguments by name."""
    async with supervisor() as sup:
        for value in STRANGE:
            with pytest.raises(InvalidValue, match="supervisor"):
                await Operation("create", "a").perform(value, bundle("true"))
        assert not list(sup)


_GIVEN = (  # what the library gives; a user makes none
    "Ability",
    "Conformance",
    "ConformanceError",
    "InfrastructureFailed",
    "Leak",
    "LeakCheck",
    "LeakError",
    "TakenContainer",
    "Unread",
    "SupervisorMachine",  # made by Hypothesis, by way of run_machine
)


def test_no_name_is_left_out() -> None:
    """Every public name is in this file, and is called."""
    source = Path(__file__).read_text()
    for name in testing.__all__:
        if name not in _GIVEN:
            assert source.count(f"{name}") >= 2, name
