"""How many of a container's processes the kernel has killed for want of memory, and which."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from supervisor import PIPE, Cause, Container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root, pytest.mark.rootless]

GREEDY = "x=a; while :; do x=$x$x; done"
CHILDREN = f"while read line; do ({GREEDY}); echo $line; done; exec sleep 60"
SECONDS = 30


async def lose_a_child(box: Container) -> None:
    """Have the kernel kill a child of the container's program, and wait until the program says that
    it goes on."""
    assert box.stdin is not None and box.stdout is not None
    with trio.fail_after(SECONDS):
        await box.stdin.send_all(b"on\n")
        assert await box.stdout.receive_some() == b"on\n"


def outlived(box: Container) -> int:
    return box.init._task.group.before


@pytest.mark.parametrize("init", [False, True])
async def test_children_are_counted(
    supervisor: OpenSupervisor, bundle: MakeBundle, init: bool
) -> None:
    """A child's out-of-memory kill is counted, and stays known afterwards; once a shell's showed
    nowhere."""
    async with supervisor() as sup:
        spec = bundle("sh", "-c", CHILDREN, memory_bytes=16 << 20, init=init)
        async with await sup.create("a", spec, stdin=PIPE, stdout=PIPE) as box:
            assert box.oom_kills == 0
            await box.start()
            for n in range(1, 3):
                await lose_a_child(box)
                assert box.oom_kills == n
            box.kill()
            assert not (await box.wait()).oom_killed
            assert box.oom_kills == 2
        assert box.oom_kills == 2
        async with await sup.create("a", bundle("true")) as later:
            assert (later.oom_kills, box.oom_kills) == (0, 2)


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("by", ["the host", "itself", "out of memory"])
async def test_a_later_end_is_not_blamed_on_it(
    supervisor: OpenSupervisor, bundle: MakeBundle, by: str, init: bool
) -> None:
    """A later SIGKILL isn't called *out of memory* because a child's once was; a true one still
    is."""
    end = {"itself": "kill -9 $$", "out of memory": GREEDY, "the host": "exec sleep 60"}[by]
    script = CHILDREN.replace("exec sleep 60", end)
    async with supervisor() as sup:
        spec = bundle("sh", "-c", script, memory_bytes=16 << 20, init=init)
        async with await sup.create("a", spec, stdin=PIPE, stdout=PIPE) as box:
            await box.start()
            await lose_a_child(box)
            await until(lambda: outlived(box) == 1, "it is seen to go on")
            assert box.stdin is not None and box.pid is not None
            if by == "the host":
                os.kill(box.pid, signal.SIGKILL)
            elif by == "itself" and not init:
                process = await box.exec(["sh", "-c", "kill -9 $$"])
                assert str(await process.wait()) == "killed by SIGKILL"
                os.kill(box.pid, signal.SIGKILL)
            else:
                await box.stdin.aclose()
            with trio.fail_after(SECONDS):
                status = await box.wait()
            assert status.signal is signal.SIGKILL
            cause = Cause.OUT_OF_MEMORY if by == "out of memory" else Cause.SIGNALLED
            assert (status.cause, box.oom_kills) == (cause, 1 + (by == "out of memory"))


async def test_one_right_after_another_is_seen_as_soon(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end in a limited container is noticed at once. For a second after each one the next once
    wasn't looked at, and a program that was killed meanwhile was *out of memory*, as an earlier
    child had been."""
    monkeypatch.setattr("supervisor.cgroups._ooms._LATE_SECONDS", 600)
    async with supervisor() as sup:
        spec = bundle("sh", "-c", CHILDREN, memory_bytes=16 << 20)
        for _ in range(3):
            async with await sup.create("a", spec, stdin=PIPE, stdout=PIPE) as box:
                await box.start()
                await lose_a_child(box)
                await until(lambda box=box: outlived(box) == 1, "it is seen to go on")


async def test_what_was_outlived_before_an_adoption(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The next supervisor doesn't blame the counted kills on a process that it finds alive: those
    were others."""
    async with supervisor(root) as sup:
        spec = bundle("sh", "-c", CHILDREN, memory_bytes=16 << 20)
        box = await sup.create("a", spec, stdin=PIPE, stdout=PIPE)
        await box.start()
        await lose_a_child(box)
    async with supervisor(root) as sup:
        box = sup["a"]
        assert box.oom_kills == 1 and box.pid is not None
        await until(lambda: outlived(box) == 1, "it is seen to live")
        os.kill(box.pid, signal.SIGKILL)
        assert (await box.wait()).cause is Cause.SIGNALLED
    async with supervisor(root) as sup:
        assert (sup["a"].oom_kills, str(sup["a"].status)) == (1, "killed by SIGKILL")
        await sup["a"].delete()


async def test_an_exec_that_was_killed_is_not_outlived_by_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """An exec that was killed for want of memory is reported so, even when the shim is stopped and
    the status settled late."""
    async with supervisor() as sup:
        spec = bundle("sleep", "60", memory_bytes=16 << 20)
        async with await sup.create("a", spec) as box:
            await box.start()
            greedy = await box.exec(["sh", "-c", f"read line; {GREEDY}"], stdin=PIPE)
            assert (
                greedy._task.handles.shim is not None and greedy._task.handles.shim.pid is not None
            )
            assert greedy.stdin is not None
            os.kill(greedy._task.handles.shim.pid, signal.SIGSTOP)
            await greedy.stdin.send_all(b"on\n")
            await until(lambda: outlived(box) == 1, "init is seen to live")
            os.kill(greedy._task.handles.shim.pid, signal.SIGCONT)
            assert (await greedy.wait()).cause is Cause.OUT_OF_MEMORY
            assert outlived(box) == 1


async def test_nobody_is_woken_without_a_limit(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A supervisor whose containers have no memory limit opens no descriptor for out-of-memory
    events."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            assert not box.init._task.shared.ooms._fds
        async with await sup.create("b", bundle("sleep", "60", memory_bytes=16 << 20)):
            assert len(sup["b"].init._task.shared.ooms._fds) == 1
