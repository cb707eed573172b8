"""A program that is a subreaper, as these tests are: the children of killed shims become the
program's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from supervisor import Bundle, ShimExited, State
from supervisor.state import read_shim
from supervisor.testing import kill_shim
from supervisor.testing._processes import state_of
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shim_of, until
from tests.support.runtimes import Choice

SLOW = """#!/bin/sh
case " $* " in *" {verb} "*) {real} "$@" || exit 1; echo x >{made}; sleep 1000;; esac
exec {real} "$@"
"""


def _slow_at(verb: str, workdir: Path, choice: Choice) -> tuple[str, Path]:
    """Return a runtime that hangs when it has made a process, and the file that reports this."""
    path, made = workdir / f"slow-{verb}", workdir / "made"
    real = shutil.which(choice.name)
    path.write_text(SLOW.format(verb=verb, real=real, made=made))
    path.chmod(0o755)
    return str(path), made


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


async def _kill_the_shim(directory: Path, made: Path) -> None:
    await until(made.exists, "it is made")
    os.kill(shim_of(directory), signal.SIGKILL)


async def test_at_create(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, choice: Choice
) -> None:
    """After a shim killed in create no process stays: once the runtime, its children and init
    stayed, two of them as zombies."""
    slow, made = _slow_at("create", workdir, choice)
    before = _children()
    async with supervisor(workdir / "root", runtime=slow) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_the_shim, workdir / "root/a/init", made)
            with pytest.raises(ShimExited):
                await sup.create("a", bundle("sleep", "60"))
        assert dict(sup.broken) == {} and list(sup) == []
        left = _children() - before
        assert not left, [Path(f"/proc/{pid}/stat").read_text() for pid in left]


async def test_at_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, choice: Choice
) -> None:
    """After a shim killed in exec no zombie stays: once one kept the container's pid namespace,
    init couldn't end, and delete failed."""
    slow, made = _slow_at("exec", workdir, choice)
    async with supervisor(workdir / "root", runtime=slow) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        before = _children()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_the_shim, workdir / "root/a/e", made)
            with pytest.raises(ShimExited):
                await box.exec(["sleep", "60"], id="e")
        left = _children() - before
        assert not left, [Path(f"/proc/{pid}/stat").read_text() for pid in left]
        assert box.state is State.RUNNING
        with trio.fail_after(5):
            await box.delete(force=True)


async def test_what_a_container_without_a_pid_namespace_leaves(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Without a pid namespace, what init leaves is left to us when the shim was killed, and we reap
    it."""
    made = bundle("sh", "-c", "setsid sleep 60 & setsid sleep 60 & wait")
    config = Path(made.path, "config.json")
    spec = json.loads(config.read_text())
    spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]
    config.write_text(json.dumps(spec))
    before = _children()
    async with supervisor(root) as sup:
        box = await sup.create("a", Bundle.load(made.path), on_shim_lost="keep")
        await box.start()
        await until(lambda: len(box.init._task.group.pids()) >= 3, "it runs")
        await kill_shim(box)
        assert box.state is State.RUNNING
        await box.delete(force=True)
        left = _children() - before
        assert not left, [Path(f"/proc/{pid}/stat").read_text() for pid in left]


async def test_a_child_of_somebody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, choice: Choice
) -> None:
    """A child that another library has launched is reaped by that library."""
    slow, made = _slow_at("create", workdir, choice)
    others = [subprocess.Popen(["sh", "-c", f"exit {n}"], start_new_session=n > 2) for n in (2, 3)]
    await until(lambda: all(state_of(other.pid) == "Z" for other in others), "they have ended")
    async with supervisor(workdir / "root", runtime=slow) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_the_shim, workdir / "root/a/init", made)
            with pytest.raises(ShimExited):
                await sup.create("a", bundle("sleep", "60"))
    assert [other.wait() for other in others] == [2, 3]


@pytest.mark.runtimes("fake", "runc", "crun")
async def test_a_shim_that_ends_between_two_opens(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path
) -> None:
    """A shim that ends between two opens is reaped, even if the container is gone by the next open:
    once such a shim stayed a zombie for good."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        pid = box.pid
    told = read_shim(str(root / "a/init/shim"))
    assert told is not None and pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: state_of(told[0]) == "Z", "its shim has ended")
    (root / "a").rename(workdir / "away")
    async with supervisor(root):
        assert state_of(told[0]) == ""
        (workdir / "away").rename(root / "a")
    async with supervisor(root) as sup:
        await sup["a"].delete()
