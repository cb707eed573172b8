"""Objects of a closed supervisor: each operation says so, and does nothing."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from supervisor import (
    PIPE,
    Container,
    ContainerPool,
    IllegalTransition,
    InvalidValue,
    Process,
    ProcessEnded,
    State,
    Supervisor,
    SupervisorClosed,
    UsageError,
    open_supervisor,
    run_container,
)
from supervisor.observers import Observation, Point
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")


async def test_a_container_of_another_now(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Operations on an old container object never touch the container that another supervisor holds
    now."""
    async with supervisor(root) as first:
        old = await first.create("a", bundle("sleep", "60"))
        waiting = await first.create("b", bundle("sleep", "60"))
        await old.start()
    async with supervisor(root) as second, second["a"] as box, second["b"]:
        before = (root / "a/state.json").read_bytes()
        with trio.fail_after(10):
            for call in (
                lambda: old.delete(force=True),
                lambda: old.stop(grace=0),
                lambda: old.exec(["true"]),
                lambda: old.run(["true"]),
                lambda: old.checkpoint(root / "image"),
                waiting.start,
                old.wait,
            ):
                with pytest.raises(SupervisorClosed, match="closed") as caught:
                    await call()
                assert caught.value.container in ("a", "b")
        assert isinstance(caught.value, UsageError | trio.ClosedResourceError)
        assert (box.state, box.status) == (State.RUNNING, None)
        assert (root / "a/state.json").read_bytes() == before


async def test_the_supervisor(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A closed supervisor makes and adopts nothing; a deleted container may be deleted again."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.delete()
    await box.delete(force=True)
    with pytest.raises(SupervisorClosed, match=str(root)):
        await sup.create("a", bundle("sleep", "60"))
    with pytest.raises(SupervisorClosed):
        await sup.adopt()
    with pytest.raises(SupervisorClosed):
        await run_container(bundle("true"), supervisor=sup)
    assert [name for name in os.listdir(root) if name != ".runtime"] == []


@pytest.mark.runtimes("fake")
async def test_somebody_waits(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A wait for an exit status from outside the block raises when the supervisor closes."""
    told: list[str] = []

    async def wait(box: Container) -> None:
        with pytest.raises(SupervisorClosed) as caught:
            await box.wait()
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        async with supervisor(root) as sup:
            box = await sup.create("a", bundle("sleep", "60"))
            await box.start()
            nursery.start_soon(wait, box)
            await trio.testing.wait_all_tasks_blocked()
    assert told == [
        "container 'a': its supervisor was closed before init ended: adopt the container with "
        f"another supervisor of {root}, and wait there"
    ]
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)


@pytest.mark.parametrize("durable", [False, True], ids=["ephemeral", "durable"])
async def test_while_it_is_made(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    durable: bool,
    nothing_left: NothingLeft,
) -> None:
    """A create that is under way at the close is undone, and raises the reason."""
    launched = trio.Event()

    def observe(seen: Observation) -> None:
        if seen is Point.LAUNCHED:
            launched.set()

    async def create(sup: Supervisor) -> None:
        with pytest.raises(SupervisorClosed, match="before the create was done"):
            await sup.create("a", bundle("sleep", "60"))

    async with trio.open_nursery() as nursery:
        async with supervisor(root if durable else None, _observer=observe) as sup:
            nursery.start_soon(create, sup)
            await launched.wait()
        assert list(sup) == []
    await nothing_left()


@pytest.mark.runtimes("fake")
async def test_while_the_user_is_looked_up(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create that looks up the user when the supervisor closes makes nothing: once the create
    went on in the closed supervisor."""
    looking = threading.Event()

    def find(*args: Any, **options: Any) -> dict[str, Any]:
        looking.set()
        until = time.monotonic() + 0.5
        while not sup._shared.life.closed and time.monotonic() < until:  # the close waits for us
            time.sleep(0.001)
        return {"uid": 0, "gid": 0}

    async def create() -> None:
        with pytest.raises(SupervisorClosed, match="before the create was done"):
            await sup.create("a", bundle("sleep", "60"), user="root")

    monkeypatch.setattr("supervisor.container._request.find_account", find)
    async with trio.open_nursery() as nursery:
        async with supervisor(root) as sup:
            nursery.start_soon(create)
            while not looking.is_set():
                await trio.sleep(0.001)
    assert [name for name in os.listdir(root) if name != ".runtime"] == []


@pytest.mark.runtimes("fake")
async def test_without_a_root_or_a_leash() -> None:
    """An open without a root or a leash is refused: the containers would live on in a place that no
    supervisor can find."""
    with pytest.raises(InvalidValue, match="without a root"):
        async with open_supervisor(leash=False):
            raise AssertionError("it was opened")


async def test_a_later_container_of_the_same_id(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A `kill` by an old handle doesn't reach a later container: once it did, by the path of the
    cgroup."""
    async with supervisor(root) as first:
        old = await first.create("a", bundle("sleep", "60"), stdin=PIPE, stdout=PIPE)
        await old.start()
        exec = await old.exec(["sleep", "60"], id="e", stdin=PIPE)
    async with supervisor(root) as second:
        await second["a"].delete(force=True)
        async with await second.create("a", bundle("cat"), stdin=PIPE, stdout=PIPE) as new:
            await new.start()
            other = await new.exec(["sleep", "60"], id="e")
            await _ask_everything(old, exec)
            assert (new.state, new.status, other.status) == (State.RUNNING, None, None)
            assert new.stdin is not None and new.stdout is not None
            await new.stdin.send_all(b"x")
            assert await new.stdout.receive_some() == b"x"
            assert old.state is State.DELETED and old.init._task.group.pids() == set()


async def _ask_everything(old: Container, exec: Process) -> None:
    """Try every operation; each says that the container is gone, or that the supervisor is
    closed."""
    for ask in (
        lambda: old.delete(force=True),
        lambda: old.stop(grace=0),
        lambda: old.exec(["true"]),
        old.start,
    ):
        with pytest.raises(SupervisorClosed):
            await ask()
    for one in (old, old.init, exec):
        for call in (one.kill, one.terminate, one.close_stdin):
            with pytest.raises(ProcessEnded):
                call()
    assert old.stdin is not None
    with pytest.raises(trio.ClosedResourceError):
        await old.stdin.send_all(b"y")
    await old.stdin.aclose()


async def test_looked_on_from_elsewhere(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker's handle is also *deleted*, though a container of the same id exists."""
    async with supervisor(root) as first, supervisor(root) as second:
        old = await first.create("a", bundle("sleep", "60"))
        await old.start()
        await second.adopt()
        seen = second["a"]
        await old.delete(force=True)
        async with await first.create("a", bundle("sleep", "60")) as new:
            await new.start()
            assert seen.state is State.DELETED
            with pytest.raises(ProcessEnded):
                seen.kill()
            with pytest.raises(IllegalTransition):
                await seen.exec(["true"])
            assert (new.state, new.status) == (State.RUNNING, None)


@pytest.mark.parametrize("whose", ["a container's", "a pool's"])
async def test_a_run_under_way(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, whose: str
) -> None:
    """A run under way at the close raises a plain error: once a pool's came in a group, which no
    ``except`` catches."""
    told: list[BaseException] = []

    async def run(sup: Supervisor, *, task_status: trio.TaskStatus[object]) -> None:
        if whose == "a pool's":
            async with ContainerPool(bundle("sleep", "60"), size=1, supervisor=sup) as pool:
                await note(pool.run, ["sleep", "60"], task_status=task_status)
        else:
            box = await sup.create("a", bundle("sleep", "60"))
            await box.start()
            await note(box.run, ["sleep", "60"], task_status=task_status)

    async def note(call: Callable[..., Awaitable[object]], *args: object, **options: Any) -> None:
        try:
            await call(*args, **options)
        except Exception as error:
            told.append(error)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, supervisor(root) as sup:
            await nursery.start(run, sup)
    assert [type(error) for error in told] == [SupervisorClosed], told
    async with supervisor(root) as sup:
        for box in list(sup.values()):
            await box.delete(force=True)


@pytest.mark.parametrize("what", ["start", "stop", "exec", "delete"])
async def test_while_it_is_under_way(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, what: str
) -> None:
    """An operation that is under way when the supervisor releases the container ends: otherwise it
    would act on a later container's files."""
    points = {
        "start": Point.STARTING,
        "stop": Point.STOP_INTENDED,
        "exec": Point.LAUNCHED,
        "delete": Point.DELETE_INTENDED,
    }
    came, armed = trio.Event(), False

    def observe(seen: Observation) -> None:
        if armed and seen is points[what]:
            came.set()

    async def do(box: Container) -> None:
        if what == "delete":
            await box.delete(force=True)
            return
        calls = {"start": box.start, "stop": box.stop, "exec": lambda: box.exec(["sleep", "9"])}
        with contextlib.suppress(SupervisorClosed):  # the stop may be done by then
            await calls[what]()

    async with trio.open_nursery() as nursery:
        async with supervisor(root, _observer=observe) as sup:
            box = await sup.create("a", bundle("sleep", "60"))
            if what != "start":
                await box.start()
            armed = True
            nursery.start_soon(do, box)
            await came.wait()
        with trio.fail_after(10):
            while nursery.child_tasks:
                await trio.sleep(0.001)
    async with supervisor(root) as sup:
        assert list(sup) == ([] if what == "delete" else ["a"])
        for box in sup.values():
            assert list(box.processes) == ["init"]
            await box.delete(force=True)
