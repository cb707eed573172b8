"""A supervisor is killed while its containers run; the next one takes them over."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from supervisor import PIPE, Cause, ContainerExists, ProcessEnded, Source, State, TooManyFiles
from supervisor.container._core import Core
from supervisor.process._evidence import Evidence, Finding, classify
from supervisor.recovery._adopt import Broken, Recovery, adopt
from supervisor.state import ContainerLayout, read_pid
from supervisor.system import Lock, held
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shim_of, state_of
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice
from tests.support.victim import Victims

pytestmark = pytest.mark.runtimes("runc", "crun", "fake")

TEN = [f"c{n}" for n in range(10)]


def let_three_exit(root: Path) -> None:
    """End three of the ten while no supervisor is there, each in another way."""
    wait_for(lambda: all((root / id / "init/starttime").exists() for id in TEN), "ten pids")
    for id in TEN[:3]:
        pid = read_pid(str(root / id / "init/pid"))
        assert pid is not None
        os.kill(pid, signal.SIGUSR1 if id == "c2" else signal.SIGTERM)
    for id in TEN[:3]:
        recorded = root / id / "init/exitStatus"
        wait_for(lambda recorded=recorded: recorded.read_text().strip() != "", f"the end of {id}")


@pytest.fixture
def ten(bundle: MakeBundle) -> dict[str, str]:
    """Bundles of ten containers that end as their signals say: 11, 12, 13 or 14."""
    scripts = {
        id: f"trap 'exit {11 + n}' TERM; trap 'exit {21 + n}' USR1; while :; do sleep 1; done"
        for n, id in enumerate(TEN)
    }
    return {
        id: bundle("sh", "-c", script.replace("sleep 1", "sleep 0.05")).path
        for id, script in scripts.items()
    }


async def test_killed_with_ten(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    ten: dict[str, str],
) -> None:
    """All ten are there after the supervisor was killed: three with their true status, seven
    running and fully usable."""
    with victim(choice.runtime(), cgroup_parent, root, containers=ten, started=TEN):
        pass
    let_three_exit(root)
    async with supervisor(root) as sup:
        assert list(sup) == TEN and not sup.broken
        told = [(box.state, box.returncode) for box in sup.values()]
        assert told[:3] == [(State.STOPPED, 11), (State.STOPPED, 12), (State.STOPPED, 23)]
        assert told[3:] == [(State.RUNNING, None)] * 7
        assert sup["c0"].status is not None and sup["c0"].status.source is Source.SHIM
        process = await sup["c3"].exec(["true"])
        assert (await process.wait()).code == 0
        for n in range(3, 10):
            stopped = await sup[f"c{n}"].stop(grace=30)
            assert (stopped.escalated, stopped.status.code) == (False, 11 + n)
        for box in sup.values():
            await box.delete()
        assert os.listdir(root) == [".runtime"]


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.parametrize("tamper", ["pid", "pid-and-start", "start", "boot", "shim", "garbage"])
async def test_tampered(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    ten: dict[str, str],
    tamper: str,
) -> None:
    """Whatever is written into the files, all ten are there, and no foreign process is ever
    signalled."""
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        with victim(choice.runtime(), cgroup_parent, root, containers=ten, started=TEN):
            pass
        let_three_exit(root)
        for id in TEN:
            _tamper(root / id, tamper, stranger.pid)
        async with supervisor(root) as sup:
            assert list(sup) == TEN and not sup.broken
            told = [(box.state, box.returncode) for box in sup.values()]
            assert told[:3] == [(State.STOPPED, 11), (State.STOPPED, 12), (State.STOPPED, 23)]
            assert told[3:] == [(State.RUNNING, None)] * 7
            for box in sup.values():
                assert box.pid != stranger.pid
            sup["c3"].send_signal(signal.SIGTERM)
            assert (await sup["c3"].wait()).code == 14
            for box in sup.values():
                await box.delete(force=True)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def _tamper(container: Path, how: str, stranger: int) -> None:
    stat = Path(f"/proc/{stranger}/stat").read_text()
    start_time = stat.rpartition(")")[2].split()[19]
    init = container / "init"
    if how in ("pid", "pid-and-start"):
        (init / "pid").write_text(str(stranger))
    if how in ("start", "pid-and-start"):
        (init / "starttime").write_text(start_time)
    if how == "boot":
        state = container / "state.json"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state.write_text(state.read_text().replace(boot, boot[::-1]))
    if how == "shim":
        (init / "shim").write_text(f"{stranger} {start_time}\n")
    if how == "garbage":
        for name in ("pid", "starttime"):
            (init / name).write_bytes(b"\xff\0 garbage")


async def test_execs_adopted(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """Execs are adopted too: a running exec can be signalled, an ended exec has its true status."""
    execs = {"stays": ["sleep", "600"], "ends": ["sh", "-c", "exit 9"]}
    containers = {"a": bundle("sleep", "600").path}
    with victim(
        choice.runtime(), cgroup_parent, root, containers=containers, started=["a"], execs=execs
    ):
        recorded = root / "a/ends/exitStatus"
        wait_for(lambda: recorded.read_text().strip() != "", "the exec's end")
    async with supervisor(root) as sup:
        box = sup["a"]
        assert set(box.processes) == {"init", "stays", "ends"}
        assert (await box.processes["ends"].wait()).code == 9
        stays = box.processes["stays"]
        assert stays.args == ("sleep", "600") and stays.status is None
        stays.kill()
        assert (await stays.wait()).signal is signal.SIGKILL
        await box.delete(force=True)


async def test_created_is_offered(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """A container that was created and never started is adopted as *created*, and can be
    started."""
    containers = {"a": bundle("sh", "-c", "exit 4").path}
    with victim(choice.runtime(), cgroup_parent, root, containers=containers):
        pass
    async with supervisor(root) as sup:
        assert sup["a"].state is State.CREATED
        await sup["a"].start()
        assert (await sup["a"].wait()).code == 4
        await sup["a"].delete()


async def test_created_is_deleted_by_policy(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """With delete_unstarted, a container that was created and never started is removed at open."""
    containers = {"a": bundle("true").path}
    with victim(choice.runtime(), cgroup_parent, root, containers=containers):
        pass
    async with supervisor(root, delete_unstarted=True) as sup:
        assert len(sup) == 0 and not sup.broken
    assert os.listdir(root) == [".runtime"]


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.parametrize("ended", [False, True])
async def test_shim_died_too(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
    ended: bool,
) -> None:
    """With supervisor and shim dead, a live process is killed and the kernel reports the exit
    status; a process that is gone as well has an unknown status, with the reason."""
    containers = {"a": bundle("sleep", "600").path}
    with victim(choice.runtime(), cgroup_parent, root, containers=containers, started=["a"]):
        pass
    shim, process = (
        int((root / "a/init" / name).read_text().split()[0]) for name in ("shim", "pid")
    )
    os.kill(shim, signal.SIGKILL)
    os.waitpid(shim, 0)  # left to us as the parent
    if ended:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    async with supervisor(root) as sup:
        status = sup["a"].status
        assert status is not None and sup["a"].state is State.STOPPED
        if ended:
            assert (status.cause, int(status)) == (Cause.UNKNOWN, 255)
            assert status.why == "shim and process are gone, and no exit status was recorded"
        else:
            assert (status.signal, status.source) == (signal.SIGKILL, Source.KERNEL)
        await sup["a"].delete()


async def test_closed_and_reopened(
    supervisor: OpenSupervisor, root: Path, bundle: MakeBundle
) -> None:
    """Closing a supervisor leaves the containers running, and the next open finds them."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "600"))
        await box.start()
        pid = box.pid
    async with supervisor(root) as sup:
        assert (sup["a"].state, sup["a"].pid) == (State.RUNNING, pid)
        sup["a"].kill()
        assert (await sup["a"].wait()).signal is signal.SIGKILL
    async with supervisor(root) as sup:
        status = sup["a"].status
        assert status is not None and status.signal is signal.SIGKILL
        with pytest.raises(ProcessEnded):
            sup["a"].terminate()
        await sup["a"].delete()


@pytest.mark.parametrize("adopted", [False, True], ids=["made", "adopted"])
async def test_its_lock_is_the_last(
    supervisor: OpenSupervisor,
    root: Path,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    adopted: bool,
) -> None:
    """The supervisor that takes over a released container gets the container's execs too."""
    release = Lock.release
    seen = []

    def look(lock: Lock) -> None:
        if lock is box._core.lock:
            seen.append(held(str(root / "a/job/lock")))
        release(lock)

    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "600"))
        await box.start()
        await box.exec(["sleep", "600"], id="job")
        if not adopted:
            monkeypatch.setattr(Lock, "release", look)
    if adopted:
        async with supervisor(root) as sup:
            box = sup["a"]
            monkeypatch.setattr(Lock, "release", look)
    monkeypatch.undo()
    assert seen == [False]
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)


async def test_output_survives(supervisor: OpenSupervisor, root: Path, bundle: MakeBundle) -> None:
    """A process's unread output is still there after a restart, even if the process has ended."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sh", "-c", "echo first; echo last"), stdout=PIPE)
        await box.start()
        await box.wait()
    async with supervisor(root) as sup:
        stream = sup["a"].stdout
        assert stream is not None
        async with stream:
            assert b"".join([chunk async for chunk in stream]) == b"first\nlast\n"
        await sup["a"].delete()


async def test_found_later(
    supervisor: OpenSupervisor,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """A container that another supervisor releases can be taken over without opening again."""
    async with supervisor(root) as sup:
        containers = {"a": bundle("sleep", "600").path}
        with victim(choice.runtime(), cgroup_parent, root, containers=containers, started=["a"]):
            [box] = await sup.adopt()
            assert box.foreign and box.state is State.RUNNING
        [box] = await sup.adopt()
        assert not box.foreign and sup["a"] is box
        with trio.fail_after(30):
            await box.delete(force=True)


async def test_an_adoption_that_is_interrupted(
    supervisor: OpenSupervisor, root: Path, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers that were taken over before the machine ran short are kept; the next adoption goes
    on."""

    async def adopt_first(recovery: Recovery, layout: ContainerLayout) -> Core | Broken | None:
        if layout.id == "b":
            await first.wait()
            raise TooManyFiles("not one left", container="b")
        try:
            return await adopt(recovery, layout)
        finally:
            first.set()

    first = trio.Event()
    async with supervisor(root) as later:
        async with supervisor(root) as sup:
            for id in ("a", "b"):
                await sup.create(id, bundle("true"))
        with monkeypatch.context() as patch, pytest.raises(TooManyFiles):
            patch.setattr("supervisor.recovery._adopt_all.adopt", adopt_first)
            await later.adopt()
        assert list(later) == ["a"]
        assert [box.id for box in await later.adopt()] == ["b"]
        for box in list(later.values()):
            await box.delete()


def test_what_was_settled_is_settled() -> None:
    """A result is final, whatever else is found beside it."""
    for watched, reported, alive in itertools.product([False, True], repeat=3):
        evidence = Evidence(settled=True, watched=watched, reported=reported, alive=alive)
        assert classify(evidence) is Finding.SETTLED


async def test_a_lost_fifo(supervisor: OpenSupervisor, root: Path, bundle: MakeBundle) -> None:
    """A container whose `exit` was removed is taken over, and counts as one that lost its shim."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
    (root / "a/init/exit").unlink()
    async with supervisor(root) as sup:
        assert (list(sup), dict(sup.broken)) == (["a"], {})
        await sup["a"].delete(force=True)


async def test_a_shim_that_ended_while_nobody_looked(
    supervisor: OpenSupervisor, root: Path, bundle: MakeBundle
) -> None:
    """A shim of this very program, ended after its supervisor closed, is reaped by the next
    supervisor."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        pid = a.pid
    assert pid is not None
    shim = shim_of(root / "a/init")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: state_of(shim) == "Z", "its shim has ended")
    async with supervisor(root) as sup:
        assert state_of(shim) == ""
        await sup["a"].delete()


async def test_an_id_that_was_ours(
    supervisor: OpenSupervisor, root: Path, bundle: MakeBundle
) -> None:
    """A container that another supervisor makes under the id of a deleted one of ours is found."""
    async with supervisor(root) as first, supervisor(root) as second:
        await (await first.create("a", bundle("true"))).delete()
        made = await second.create("a", bundle("true"))
        assert [box.foreign for box in await first.adopt()] == [True]
        await made.delete()


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_paused_container_was_started(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, verb: str
) -> None:
    """Where the mark of the start is missing, the runtime is asked: "paused" means started, too."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        runtime = a._core.runtime.head
    command = [runtime.path, *runtime.args, "--root", runtime.root]
    for word in ("pause", "resume")[: 1 if verb == "pause" else 2]:
        subprocess.run([*command, word, "a"], check=True)
    (root / "a/init/started").unlink()
    async with supervisor(root) as sup:
        a = sup["a"]
        assert a.state is State.RUNNING and (root / "a/init/started").exists()
        if verb == "pause":
            subprocess.run([*command, "resume", "a"], check=True)
        await a.delete(force=True)


async def test_beside_a_create_of_its_id(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    cgroup_parent: str,
    root: Path,
    victim: Victims,
) -> None:
    """A create of an id that is on disk doesn't keep an adoption from that container."""

    async def create() -> None:
        with pytest.raises(ContainerExists):
            await sup.create("a", bundle("true"), user="root")

    async with supervisor(root) as sup:
        left = {"a": bundle("sleep", "60").path}
        with victim(choice.runtime(), cgroup_parent, root, containers=left):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            for _ in range(6):
                await trio.lowlevel.checkpoint()
            assert [box.id for box in await sup.adopt()] == ["a"]
        await sup["a"].delete(force=True)
