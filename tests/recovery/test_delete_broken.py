"""Containers that can't be understood are removed with all that runs of them, files or no files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from supervisor import (
    CleanupIncomplete,
    ContainerExists,
    ContainerLocked,
    ContainerNotFound,
    Deadlines,
    open_supervisor,
)
from supervisor.system import Lock
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import end, pid_in, reap, shim_of, state_of
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")


@pytest.fixture
async def running(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> Path:
    """Leave a container that runs, with an exec; return the container's directory."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        await a.exec(["sleep", "60"], id="job")
    return root / "a"


@pytest.mark.parametrize(
    "files",
    [
        ["state.json"],
        ["init/process.json"],
        ["init/result.json"],
        ["state.json", "init/shim", "init/pid", "job/process.json"],
    ],
    ids=["state", "process", "result", "nearly all"],
)
async def test_rubbish(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    running: Path,
    files: list[str],
    nothing_left: NothingLeft,
) -> None:
    """`delete_broken` ends the container's processes and shims, removes cgroup and files, and frees
    the id; once no call could."""
    shims = [shim_of(running / name) for name in ("init", "job")]
    for file in files:
        (running / file).write_bytes(b"rubbish")
    async with supervisor(root) as sup:
        with pytest.raises(ContainerExists, match=r"repair it, or .*delete_broken\(id\)"):
            await sup.create("a", bundle("true"))
        with pytest.raises(ContainerNotFound, match=r"repair it, or .*delete_broken\(id\)"):
            sup["a"]
        with trio.fail_after(20):
            await sup.delete_broken("a")
        assert (list(sup), dict(sup.broken)) == ([], {})
        await nothing_left()
        await reap(*shims)  # where nothing says which processes they were
        async with await sup.create("a", bundle("true")):
            pass


async def test_without_its_shim(
    supervisor: OpenSupervisor, root: Path, running: Path, nothing_left: NothingLeft
) -> None:
    """Processes that the shim doesn't hold any more are found in the container's cgroup."""
    (running / "state.json").unlink()
    end(shim_of(running / "init"))
    async with supervisor(root) as sup:
        await sup.delete_broken("a")
        await nothing_left()


async def test_in_an_unknown_cgroup(
    choice: Choice, cgroup_parent: str, root: Path, running: Path
) -> None:
    """A process that isn't in the presumed cgroup is killed by its shim."""
    pid = pid_in(running / "init")
    (running / "state.json").write_bytes(b"rubbish")
    (running / "init/pid").unlink()
    async with open_supervisor(
        root, runtime=choice.runtime(), cgroup_parent=f"{cgroup_parent}-other"
    ) as sup:
        await sup.delete_broken("a")
        assert state_of(pid) in ("", "Z") and not running.exists()


@pytest.mark.runtimes("fake")
async def test_refused(
    supervisor: OpenSupervisor, root: Path, running: Path, nothing_left: NothingLeft
) -> None:
    """A container that isn't broken, or that another supervisor holds, is left alone."""
    sound = (running / "state.json").read_bytes()
    async with supervisor(root) as sup:
        for id in ("a", "b"):
            with pytest.raises(ContainerNotFound):
                await sup.delete_broken(id)
    (running / "state.json").write_bytes(b"rubbish")
    async with supervisor(root) as sup:
        lock = Lock.take(str(running / "lock"))
        assert lock is not None
        with lock, pytest.raises(ContainerLocked):
            await sup.delete_broken("a")
        assert list(sup.broken) == ["a"] and state_of(pid_in(running / "init")) == "S"
        (running / "state.json").write_bytes(sound)
        [a] = await sup.adopt()
        await a.delete(force=True)
        await nothing_left()


@pytest.mark.runtimes("fake")
async def test_one_of_ours(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    workdir: Path,
    nothing_left: NothingLeft,
) -> None:
    """A container that couldn't be deleted is deleted again; if that fails again, the container
    stays listed."""
    trouble = workdir / "trouble"
    trouble.touch()
    runtime = choice.runtime(f"fail-delete-while:{trouble}")
    async with supervisor(root, runtime=runtime, deadlines=Deadlines(cleanup=2)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        with pytest.raises(CleanupIncomplete):
            await a.delete()
        with pytest.raises(CleanupIncomplete):
            await sup.delete_broken("a")
        assert list(sup.broken) == ["a"] and os.path.exists(root / "a")
        trouble.unlink()
        await sup.delete_broken("a")
        assert dict(sup.broken) == {}
        await nothing_left()


@pytest.mark.runtimes("fake")
async def test_a_shim_that_is_stopped_and_cannot_be_found(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """`delete_broken` says that a shim doesn't exit, and leaves the directory as a trace.

    The list of processes was once used up by the first of several loops: the directory went, and
    the process ran on.
    """
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
    directory = root / "a"
    shim, process = shim_of(directory / "init"), pid_in(directory / "init")
    os.kill(shim, signal.SIGSTOP)
    (directory / "state.json").write_bytes(b"rubbish")
    for name in ("shim", "pid"):
        (directory / "init" / name).unlink()
    async with supervisor(root, deadlines=Deadlines(shim=0.5)) as sup:
        with pytest.raises(CleanupIncomplete, match="shim that can't be found doesn't end"):
            await sup.delete_broken("a")
        assert directory.exists() and list(sup.broken) == ["a"]
        os.kill(process, signal.SIGKILL)
        os.kill(shim, signal.SIGCONT)
        await reap(shim)
        await sup.delete_broken("a")
    assert not directory.exists()
