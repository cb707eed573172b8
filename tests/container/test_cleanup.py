"""Clean-up fails or takes too long: what is left is listed, and the next open tries again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import (
    CleanupIncomplete,
    ContainerExists,
    ContainerLocked,
    DeadlineExpired,
    Deadlines,
    RuntimeFailed,
    State,
)
from supervisor.cgroups import Hierarchies
from supervisor.container import _delete
from supervisor.system import Lock
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support import leaks
from tests.support.containers import end, hurried, living, reap, shim_of, until, with_hook
from tests.support.runtimes import Choice
from tests.support.victim import Victims

pytestmark = pytest.mark.runtimes("fake")

BRIEF = Deadlines(call=0.15, cleanup=0.4)
"""For clean-ups that fail; those that must succeed have the ordinary time."""


@pytest.fixture
def trouble(workdir: Path) -> Path:
    """A file; while the file exists, the runtime misbehaves."""
    path = workdir / "trouble"
    path.touch()
    return path


@pytest.mark.parametrize("fault", ["hang", "fail"])
async def test_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    trouble: Path,
    fault: str,
    nothing_left: NothingLeft,
) -> None:
    """A delete that can't be finished in time lists what is left, until an open can finish the
    delete."""
    runtime = choice.runtime(f"{fault}-delete-while:{trouble}")
    left_over = (str(root / "a"), str(root / ".runtime/a"))
    async with supervisor(root, runtime=runtime, deadlines=BRIEF) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with pytest.raises(CleanupIncomplete) as caught:
            await a.delete(force=True)
        assert (caught.value.seconds, caught.value.container) == (BRIEF.cleanup, "a")
        assert (a.state, list(sup)) == (State.BROKEN, [])
        assert (await a.wait()).signal == signal.SIGKILL  # the container was killed all the same
        assert all(path in sup.broken["a"].reason for path in left_over)
        with pytest.raises(ContainerExists, match="broken"):
            await sup.create("a", bundle("true"))
    async with supervisor(root, deadlines=BRIEF) as sup:
        assert list(sup) == []
        assert all(path in sup.broken["a"].reason for path in left_over)
    trouble.unlink()
    async with supervisor(root) as sup:
        assert (list(sup), dict(sup.broken)) == ([], {})
        await nothing_left()


async def test_second_try(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    trouble: Path,
    nothing_left: NothingLeft,
) -> None:
    """A runtime that fails to delete is called once more, after all processes in the cgroup have
    died."""
    async with supervisor(root, runtime=choice.runtime(f"fail-delete-once:{trouble}")) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.delete()
        assert not trouble.exists() and a.state is State.DELETED
        await nothing_left()


@pytest.mark.parametrize("fault", ["hang", "fail"])
async def test_undoing_a_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    trouble: Path,
    fault: str,
    nothing_left: NothingLeft,
) -> None:
    """A failed create whose clean-up fails too raises the create's error, and the container is
    listed as broken."""
    faults = ("fail-create-after-pid:no", f"{fault}-delete-while:{trouble}")
    async with supervisor(root, runtime=choice.runtime(*faults)) as sup:
        with hurried(sup, call=BRIEF.call), pytest.raises(RuntimeFailed, match="no"):
            await sup.create("a", bundle("sleep", "60"))
        assert list(sup) == [] and str(root / "a") in sup.broken["a"].reason
        with pytest.raises(ContainerExists, match="broken"):
            await sup.create("a", bundle("true"))
        trouble.unlink()
        assert await sup.adopt() == []
        assert dict(sup.broken) == {}  # the directory stayed, and the id was in use for ever
        await nothing_left()


async def test_delete_again_without_a_handle(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    trouble: Path,
    nothing_left: NothingLeft,
) -> None:
    """`adopt` tries a failed delete again: after a block no supervisor holds the container."""
    runtime = choice.runtime(f"fail-delete-while:{trouble}")
    async with supervisor(root, runtime=runtime) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        with hurried(sup, cleanup=0.4), pytest.raises(CleanupIncomplete):
            await a.delete(force=True)
        assert await sup.adopt() == []
        assert (list(sup), list(sup.broken), a.state) == ([], ["a"], State.BROKEN)
        trouble.unlink()
        assert await sup.adopt() == []
        assert (dict(sup.broken), a.state) == ({}, State.DELETED)
        async with await sup.create("a", bundle("true")):
            pass
        await nothing_left()


async def test_at_the_end_of_an_ephemeral_one(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, trouble: Path
) -> None:
    """An ephemeral supervisor whose runtime can't delete at that moment still closes, and warns."""
    runtime = choice.runtime(f"fail-delete-while:{trouble}")
    async with supervisor(runtime=runtime) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
    assert a.status is not None and not os.path.exists(sup.root)


async def test_an_end_that_the_system_refuses(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One leashed container that can't be deleted doesn't keep the others from their deletes,
    whatever the error.

    The system's own error once came out of the block, and cancelled the deletes of the others.
    """
    remove = _delete.remove_directory

    def fail(path: str) -> None:
        if path.endswith("/a"):
            raise OSError(errno.EBUSY, "busy", path)
        remove(path)

    monkeypatch.setattr(_delete, "remove_directory", fail)
    async with supervisor() as sup:
        for id in ("a", "b"):
            await sup.create(id, bundle("sleep", "60"))
        b = sup["b"]
    assert b.state is State.DELETED


async def test_killed_while_it_deletes(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    cgroup_parent: str,
    trouble: Path,
    nothing_left: NothingLeft,
) -> None:
    """The runtime's delete of a killed supervisor holds the lock until the delete has ended.

    Otherwise the next open would delete at the same time, and a container that is created then
    under the same id would be deleted too.
    """
    runtime = choice.runtime(f"hang-delete-while:{trouble}")
    async with supervisor(root, runtime=runtime) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        shim = shim_of(root / "a/init")
    with _deleter(root, cgroup_parent) as pid:
        await until(lambda: _deletes(pid), "the runtime's delete runs")
        assert json.loads((root / "a/state.json").read_text())["intent"] == "delete"
    async with supervisor(root) as sup:
        box = sup["a"]
        assert box.foreign
        with pytest.raises(ContainerLocked):
            await box.delete(force=True)
        trouble.unlink()
        with trio.fail_after(10):
            while (root / "a").exists():
                assert await sup.adopt() in ([], [box])
        await reap(shim)
        await nothing_left()


@contextlib.contextmanager
def _deleter(root: Path, cgroup_parent: str) -> Iterator[int]:
    """Run a program that deletes ``a``, and kill the program at the end of the block."""
    words = [sys.executable, "-m", "tests.container.deleter", str(root), cgroup_parent, "sh"]
    program = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    try:
        yield program.pid
    finally:
        leaks.STRANGERS.update(leaks.descendants(program.pid))
        program.kill()
        program.wait()


def _deletes(pid: int) -> bool:
    return any(" delete " in f" {words} " for words in leaks.descendants(pid).values())


@pytest.mark.parametrize("stage", ["intent", "directory gone half-way", "shim stopped"])
async def test_delete_that_was_begun(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    stage: str,
    nothing_left: NothingLeft,
) -> None:
    """The next open finishes a delete that was begun, whatever was gone by then."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        shim = shim_of(root / "a/init")
    state = root / "a/state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "intent": "delete"}))
    if stage == "shim stopped":
        os.kill(shim, signal.SIGSTOP)
    elif stage != "intent":
        end(shim)
        (root / "a/init/process.json").unlink()
        (root / "a/init/exit").unlink()
    async with supervisor(root, deadlines=Deadlines(shim=0.2)) as sup:
        assert (list(sup), dict(sup.broken)) == ([], {})
        await reap(shim)
        await nothing_left()


# ---- creates and execs that were never finished ---------------------------------------------

unfinished = pytest.mark.parametrize(
    ("when", "ready"),
    [("", "shim"), ("-before-pid", "shim"), ("-after-pid", "pid")],
)


@unfinished
@pytest.mark.parametrize("shim", ["lives", "dead"])
async def test_killed_while_it_creates(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    cgroup_parent: str,
    victim: Victims,
    when: str,
    ready: str,
    shim: str,
    nothing_left: NothingLeft,
) -> None:
    """The next open removes a create whose supervisor was killed, perhaps with the shim."""
    runtime = choice.runtime(f"hang-create{when}")
    boxes = {"a": bundle("sleep", "60").path}
    with victim(runtime, cgroup_parent, root, containers=boxes, say_before=True):
        await until((root / "a/init" / ready).exists, f"{ready} is there")
        await until(lambda: not when or (root / ".runtime/a/state").exists(), "it is half-made")
    if shim == "dead":
        end(shim_of(root / "a/init"))
    async with supervisor(root) as sup:
        assert (list(sup), dict(sup.broken)) == ([], {})
        await nothing_left()


@pytest.mark.runtimes("runc", "crun")
async def test_killed_while_a_real_one_creates(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    cgroup_parent: str,
    victim: Victims,
    workdir: Path,
    nothing_left: NothingLeft,
) -> None:
    """The same holds for a real runtime that hangs in a hook: the cgroup and the hook go too."""
    ready = workdir / "ready"
    hook = ("sh", "-c", f"echo > {ready}; exec sleep 1000")
    boxes = {"a": with_hook(bundle("sleep", "60"), "createRuntime", *hook).path}
    with victim(choice.runtime(), cgroup_parent, root, containers=boxes, say_before=True):
        await until(ready.exists, "the hook runs")
    async with supervisor(root) as sup:
        assert (list(sup), dict(sup.broken)) == ([], {})
        await nothing_left()


@unfinished
async def test_killed_while_it_execs(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    cgroup_parent: str,
    victim: Victims,
    when: str,
    ready: str,
) -> None:
    """An exec whose supervisor was killed half-way is ended and removed; the container runs on."""
    boxes = {"a": bundle("sleep", "60").path}
    before = living(os.getpid())
    with victim(
        choice.runtime(f"hang-exec{when}"),
        cgroup_parent,
        root,
        containers=boxes,
        started=["a"],
        execs={"job": ["sleep", "61"]},
        say_before=True,
    ):
        await until((root / "a/job" / ready).exists, f"{ready} is there")
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (list(a.processes), a.state) == (["init"], State.RUNNING)
        assert not (root / "a/job").exists()
        await until(lambda: len(living(os.getpid()) - before) == 2, "only init and its shim live")
        await a.delete(force=True)


async def test_temporary_directories(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The directories that a killed supervisor was making or removing are swept away; those of
    living ones stay."""
    root.mkdir(mode=0o711)
    for name in (".new-dead", ".deleted-dead", ".new-alive"):
        (root / name / "init").mkdir(parents=True)
    (root / ".new-empty").mkdir()
    (root / ".new-dead/lock").touch()
    lock = Lock.take(str(root / ".new-alive/lock"))
    assert lock is not None
    with lock:
        async with supervisor(root) as sup:
            assert (list(sup), dict(sup.broken)) == ([], {})
        assert os.listdir(root) == [".new-alive"]


# ---- processes that can't be killed ---------------------------------------------------------


@pytest.mark.runtimes("runc")
async def test_frozen(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, cgroup_parent: str
) -> None:
    """A container that doesn't even end by SIGKILL is reported in time, and ends when it can.

    The frozen cgroup is the one above the container's own, and not ours to thaw.
    """
    async with supervisor(root, deadlines=Deadlines(kill=0.3)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with _freezer(cgroup_parent):
            with pytest.raises(DeadlineExpired, match="frozen") as caught:
                await a.stop(grace=0)
            assert caught.value.seconds == 0.3
            assert (a.state, a.status) == (State.RUNNING, None)
        assert (await a.wait()).signal == 9
        await a.delete()


@contextlib.contextmanager
def _freezer(parent: str) -> Iterator[None]:
    """Freeze a cgroup parent as version 1 does: even SIGKILL doesn't get through."""
    found = [Path(place, "freezer.state") for place in Hierarchies.discover().remains(parent)]
    files = [path for path in found if path.exists()]
    if not files:
        pytest.skip("no cgroup version 1 freezer is mounted: version 2's lets SIGKILL through")
    for file in files:
        file.write_text("FROZEN")
    try:
        yield
    finally:
        for file in files:
            file.write_text("THAWED")
