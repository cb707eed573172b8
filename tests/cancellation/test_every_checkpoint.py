"""Cancel an operation after its n-th checkpoint, for every n until it completes uncancelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from supervisor import Deadlines, State
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.cancelling import cancelled_after, for_every_checkpoint, some_checkpoints
from tests.support.containers import left
from tests.support.runtimes import fake

pytestmark = [pytest.mark.runtimes("runc", "crun", "fake"), pytest.mark.timeout(300)]


async def test_create(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A create that is cancelled anywhere leaves no directory, no runtime state, no entry."""
    spec = bundle("sleep", "600")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            cancelled = await cancelled_after(steps, lambda: sup.create("a", spec))
            if cancelled:
                assert list(sup) == [] and not sup.broken
                assert left(root) == []
            return cancelled

        await for_every_checkpoint(attempt)
        await sup["a"].delete()


async def test_start(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A start that is cancelled anywhere leaves the container in the state that the runtime
    reports."""
    spec = bundle("sleep", "600")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            async with await sup.create("a", spec) as box:
                cancelled = await cancelled_after(steps, box.start)
                assert box.state in (State.CREATED, State.RUNNING)
                if box.state is State.CREATED:
                    await box.start()
                assert box.state is State.RUNNING and box.status is None
            return cancelled

        await for_every_checkpoint(attempt, least=1)  # it waits for the runtime, once


async def test_exec(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """An exec that is cancelled anywhere leaves no process, no directory and no entry."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()

        async def attempt(steps: int) -> bool:
            command = ["sh", "-c", f"trap '' TERM INT; exec sleep {600 + steps}"]
            cancelled = await cancelled_after(steps, lambda: box.exec(command, id="e"))
            if cancelled:
                assert set(box.processes) == {"init"}
                assert not (root / "a/e").exists()
                await no_process_runs(["sleep", f"{600 + steps}"])
                await no_process_runs(command)
            return cancelled

        await for_every_checkpoint(attempt)


async def no_process_runs(command: list[str]) -> None:
    """Wait until no process on this machine has this very command line."""
    wanted = b"".join(word.encode() + b"\0" for word in command)

    def runs() -> bool:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes() == wanted:
                    return True
            except OSError:
                continue
        return False

    with trio.fail_after(20):
        while runs():
            await trio.sleep(0.001)


async def test_stop(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A stop that is cancelled anywhere leaves a container that can be stopped and deleted."""
    spec = bundle("sh", "-c", "trap '' TERM; exec sleep 600")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            async with await sup.create("a", spec) as box:
                await box.start()
                cancelled = await cancelled_after(steps, lambda: box.stop(grace=0.01))
                if box.status is None:
                    assert box.state is State.RUNNING
                    assert b'"intent": null' in (root / "a/state.json").read_bytes()
                assert (await box.stop(grace=0.01)).status.signal is not None
            return cancelled

        await for_every_checkpoint(attempt)


async def test_delete(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, pytestconfig: pytest.Config
) -> None:
    """A delete that is cancelled either hasn't begun or is completed."""
    spec = bundle("sleep", "600")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            box = await sup.create("a", spec)
            await box.start()
            cancelled = await cancelled_after(steps, lambda: box.delete(force=True))
            assert box.state in (State.RUNNING, State.DELETED)
            if box.state is State.RUNNING:
                await box.delete(force=True)
            assert list(sup) == [] and left(root) == []
            return cancelled

        await some_checkpoints(attempt, each=bool(pytestconfig.getoption("--long")))


@pytest.mark.runtimes("fake")
async def test_cleanup_deadline(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, choice: object
) -> None:
    """If a cancelled create's clean-up has no time either, the container is listed as broken with
    what is left, and the next open removes that."""
    hang = workdir / "hang"
    hang.touch()
    deadlines = Deadlines(cleanup=0.5, call=0.2)
    stuck = fake("hang-create", f"hang-delete-while:{hang}")
    async with supervisor(root, runtime=stuck, deadlines=deadlines) as sup:
        with trio.move_on_after(0.3) as scope:
            await sup.create("a", bundle("sleep", "600"))
        assert scope.cancelled_caught and list(sup) == []
        assert "Left: " in sup.broken["a"].reason and str(root / "a") in sup.broken["a"].reason
    hang.unlink()
    async with supervisor(root, runtime=stuck) as sup:
        assert list(sup) == [] and not sup.broken
        assert left(root) == []
