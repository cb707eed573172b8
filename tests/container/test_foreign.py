"""A container that another living supervisor holds: looking and ending work, the rest doesn't."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    PIPE,
    Cause,
    Container,
    ContainerExists,
    ContainerLocked,
    Deadlines,
    ExitStatus,
    Source,
    State,
    Supervisor,
    UsageError,
)
from supervisor.observers import Observation, Point
from supervisor.system import Lock
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import end, pid_in, read_all, shim_of, state_of

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")


@attrs.frozen
class Pair:
    """One container, as its owner and as another supervisor see it."""

    owner: Container
    other: Container


@pytest.fixture
async def pair(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> AsyncIterator[Pair]:
    """A container that runs, opened twice."""
    async with supervisor(root, deadlines=Deadlines(shim=0.1)) as first:
        owner = await first.create("a", bundle("sleep", "60"), labels={"k": "v"})
        async with supervisor(root) as second:
            yield Pair(owner, second["a"])
        await owner.delete(force=True)
        await nothing_left()


async def test_looking(pair: Pair) -> None:
    """Both supervisors see what the container is, also when the owner starts it."""
    owner, other = pair.owner, pair.other
    assert (owner.foreign, other.foreign) == (False, True)
    assert (other.state, other.status, dict(other.labels)) == (State.CREATED, None, {"k": "v"})
    await owner.start()
    assert (other.state, other.pid, other.returncode) == (State.RUNNING, owner.pid, None)


@pytest.mark.runtimes("fake")
async def test_locked(pair: Pair, tmp_path: Path, root: Path) -> None:
    """Start, delete and checkpoint are refused, at once, and change nothing."""
    owner, other = pair.owner, pair.other
    before = (root / "a/state.json").read_bytes()
    with pytest.raises(ContainerLocked, match="cannot start: another living supervisor"):
        await other.start()
    for force in (False, True):
        with pytest.raises(ContainerLocked, match="cannot delete") as caught:
            await other.delete(force=force)
    assert caught.value.container == "a" and isinstance(caught.value, UsageError)
    assert (owner.state, other.state) == (State.CREATED, State.CREATED)
    await owner.start()
    with pytest.raises(ContainerLocked):
        await other.checkpoint(tmp_path / "image")
    with pytest.raises(ContainerLocked):
        await other.start()
    assert not (tmp_path / "image").exists()
    assert (root / "a/state.json").read_bytes() == before
    assert (owner.state, owner.status) == (State.RUNNING, None)


async def test_deleted_before_its_end_is_seen(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker that was busy while the owner ended and deleted the container learns of both
    together."""
    state, away = root / "a/state.json", root / "a/away"

    def observe(seen: Observation) -> None:
        if seen is Point.EXIT_SEEN:
            state.rename(away)  # a delete renames the whole directory away

    async with supervisor(root) as first, supervisor(root, _observer=observe) as second:
        owner = await first.create("a", bundle("sleep", "60"))
        async with owner:
            await owner.start()
            assert len(await second.adopt()) == 1
            other = second["a"]
            assert other.state is State.RUNNING
            owner.kill()
            with trio.fail_after(10):
                status = await other.wait()
            assert (other.state, status.signal) == (State.DELETED, signal.SIGKILL)
            away.rename(state)


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize("replaced", [False, True])
async def test_deleted_before_its_end_is_noticed(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, replaced: bool
) -> None:
    """A wait for a container that `adopt` finds deleted returns; it once waited for ever."""
    told: list[ExitStatus] = []
    async with supervisor(root) as first, supervisor(root) as second:
        async with await first.create("a", bundle("sleep", "60")) as owner:
            await owner.start()
            await second.adopt()
            other = second["a"]
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with trio.fail_after(10):
                        told.append(await other.wait())

                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                (root / "a").rename(workdir / "away")
                if replaced:
                    (root / "a").mkdir()
                    record = json.loads((workdir / "away/state.json").read_text())
                    (root / "a/state.json").write_text(json.dumps({**record, "created": 1}))
                assert await second.adopt() == []
            shutil.rmtree(root / "a", ignore_errors=True)
            (workdir / "away").rename(root / "a")
        assert (told[0].cause, told[0].source) == (Cause.UNKNOWN, Source.INFERENCE)
        assert told[0].why is not None and "deleted by another supervisor" in told[0].why


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, None])
async def test_same_end(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, number: signal.Signals | None
) -> None:
    """However the container ends, and whichever side ended it, both sides see the same status."""
    script = "trap 'exit 44' INT; echo ready; read x; exit 43"
    async with supervisor(root) as first, supervisor(root) as second:
        owner = await first.create("a", bundle("sh", "-c", script), stdin=PIPE, stdout=PIPE)
        assert owner.stdin is not None and owner.stdout is not None
        assert len(await second.adopt()) == 1
        other = second["a"]
        async with owner:
            await owner.start()
            assert await owner.stdout.receive_some() == b"ready\n"
            if number is None:
                await owner.stdin.send_all(b"\n")
            else:
                other.send_signal(number)
                await owner.stdin.aclose()  # a shell may wait for a read to end
            told = []
            async with trio.open_nursery() as nursery:

                async def wait(box: Container) -> None:
                    told.append(await box.wait())

                nursery.start_soon(wait, owner)
                nursery.start_soon(wait, other)
            assert told[0] == told[1] and told[0].source is Source.SHIM
            expected = 43 if number is None else {signal.SIGKILL: 137, signal.SIGINT: 44}[number]
            assert int(told[0]) == expected
            assert other.state is State.STOPPED


async def test_same_end_without_a_shim(pair: Pair, root: Path) -> None:
    """Both sides see the same also when the shim was killed and the kernel had to be asked."""
    await pair.owner.start()
    os.kill(shim_of(root / "a/init"), signal.SIGKILL)
    with trio.fail_after(10):
        first = await pair.owner.wait()
        assert await pair.other.wait() == first
    assert first.source is not Source.SHIM


async def test_stop(pair: Pair, root: Path) -> None:
    """The other supervisor can stop the container, and doesn't change what the owner has on
    record."""
    await pair.owner.start()
    before = (root / "a/state.json").read_bytes()
    stopped = await pair.other.stop(grace=0.05)
    assert stopped.status == await pair.owner.wait()
    assert (await pair.owner.stop()).escalated is False
    assert (root / "a/state.json").read_bytes() == before


async def test_exec(pair: Pair, root: Path) -> None:
    """The other supervisor can run a program inside, and has the program's streams and exit
    status."""
    await pair.owner.start()
    job = await pair.other.exec(["sh", "-c", "echo hi; exit 9"], id="job", stdout=PIPE)
    assert set(pair.owner.processes) <= {"init", "job"}  # found by a look, while the job runs
    assert await read_all(job) == b"hi\n"
    assert (await job.wait()).code == 9
    with trio.fail_after(10):
        while (root / "a/job").exists():
            await trio.sleep(0.001)


@pytest.mark.runtimes("runc", "crun")
async def test_exec_of_a_container_that_its_owner_deletes(pair: Pair) -> None:
    """An exec from the other side ends with the container, and reports its exit status."""
    await pair.owner.start()
    job = await pair.other.exec(["sleep", "61"], id="job")
    with trio.fail_after(10):
        await pair.owner.delete(force=True)
        status = await job.wait()
    assert status.signal == signal.SIGKILL or status.cause is Cause.UNKNOWN


async def test_owner_lets_go(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """When the owner closes, the other supervisor can take the container over, and may then do
    everything."""
    async with supervisor(root) as second:
        async with supervisor(root) as first:
            await first.create("a", bundle("sleep", "60"))
            assert [box.foreign for box in await second.adopt()] == [True]
            with pytest.raises(ContainerExists):
                await second.create("a", bundle("true"))
        assert [box.foreign for box in await second.adopt()] == [False]
        await second["a"].start()
        await second["a"].delete(force=True)
        await nothing_left()


@pytest.mark.parametrize("kept", ["kill", "keep"])
async def test_input_ends(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, kept: str
) -> None:
    """An onlooker doesn't keep a program's input from ending, until the onlooker has sent
    something."""
    async with supervisor(root) as first, supervisor(root) as second:
        for sends in (False, True):
            async with await first.create(
                "a", bundle("cat"), stdin=PIPE, stdout=PIPE, on_shim_lost=kept
            ) as owner:
                await second.adopt()
                await owner.start()
                ours, theirs = owner.stdin, second["a"].stdin
                assert ours is not None and theirs is not None and owner.stdout is not None
                if sends:
                    await theirs.send_all(b"from the other side")
                    assert await owner.stdout.receive_some() == b"from the other side"
                await ours.aclose()
                if sends:
                    await theirs.send_all(b"more")
                    assert await owner.stdout.receive_some() == b"more"
                    await theirs.aclose()
                with trio.fail_after(10):
                    assert (await owner.wait()).code == 0


@pytest.mark.parametrize("kept", ["kill", "keep"])
async def test_input_of_one_that_was_taken_over(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, kept: str
) -> None:
    """After a take-over the new owner closes the input as its maker would, even if the container
    was kept without a shim."""
    async with supervisor(root) as second:
        async with supervisor(root) as first:
            box = await first.create("a", bundle("cat"), stdin=PIPE, stdout=PIPE, on_shim_lost=kept)
            await box.start()
            await second.adopt()
        await second.adopt()
        box = second["a"]
        assert not box.foreign and box.stdin is not None and box.stdout is not None
        if kept == "keep":
            end(shim_of(root / "a/init"))
        await box.stdin.send_all(b"hello")
        assert await box.stdout.receive_some() == b"hello"
        await box.stdin.aclose()
        with trio.fail_after(10):
            assert (await box.wait()).signal is None
        await box.delete(force=True)


@pytest.mark.runtimes("runc", "crun")
async def test_left_alone(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """An onlooker doesn't kill a foreign process whose shim dies: that is the owner's task."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    lock = Lock.take(str(root / "a/lock"))
    assert lock is not None
    with lock:  # a supervisor that has more urgent things to do
        async with supervisor(root, deadlines=Deadlines(kill=0.2)) as sup:
            end(shim_of(root / "a/init"))
            status = await sup["a"].wait()
            assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
            assert status.why is not None and "the owner didn't record" in status.why
            assert state_of(pid_in(root / "a/init")) == "S"
            assert not (root / "a/init/result.json").exists()
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)
        await nothing_left()


@pytest.mark.runtimes("fake")
async def test_same_id_at_the_same_time(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Of two supervisors that create the same id at once, one succeeds and the other raises."""
    told: list[str] = []
    async with supervisor(root) as first, supervisor(root) as second:

        async def create(sup: Supervisor) -> None:
            try:
                await sup.create("a", bundle("true"))
                told.append("made")
            except ContainerExists:
                told.append("exists")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, first)
            nursery.start_soon(create, second)
        assert sorted(told) == ["exists", "made"]
        for box in (*first.values(), *second.values()):
            await box.delete()
