"""A look at a root: what is there, by the disk and the kernel, with nothing adopted or changed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

import supervisor as library
from supervisor import Bundle, ContainerView, InvalidValue, State, look
from supervisor.system import held
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice, needs_root
from tests.support.users import as_user
from tests.support.victim import Victims

pytestmark = pytest.mark.runtimes("runc", "crun", "fake")


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return the inode, the size and the last change of everything below a root."""
    found = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (
                status.st_ino,
                status.st_size,
                status.st_ctime_ns,
            )
    return found


def only(views: tuple[ContainerView, ...]) -> ContainerView:
    (view,) = views
    return view


async def test_a_life_as_others_see_it(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A look shows each state as the supervisor itself does, with pids, labels, execs and exit
    statuses."""
    async with supervisor(root) as sup:
        assert await look(root) == ()
        box = await sup.create("web", bundle("sleep", "60"), labels={"a": "b"})
        view = only(await look(root))
        assert (view.id, view.state, view.supervised) == ("web", State.CREATED, True)
        assert view.labels == {"a": "b"} and view.problem is None and not view.leash
        assert view.init is not None and view.init.pid == box.init.pid
        assert view.init.args == ("sleep", "60") and view.init.cwd == "/"
        await box.start()
        process = await box.exec(["sleep", "60"], id="side")
        view = only(await look(root))
        assert view.state is State.RUNNING and view.init is not None
        assert view.init.status is None and view.execs["side"].pid == process.pid
        process.kill()
        await process.wait()
        box.kill()
        assert (await box.wait()).signal == signal.SIGKILL
        view = only(await look(root))
        assert view.state is box.state is State.STOPPED
        assert view.init is not None and view.init.status == box.init.status
        assert view.init.pid is None
        await box.delete()
        assert await look(root) == ()


async def test_nothing_changes(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A look makes, removes and writes no file, even beside a supervisor of this very program."""
    async with supervisor(root) as sup:
        box = await sup.create("web", bundle("sleep", "60"))
        await box.start()
        before = snapshot(root)
        assert [view.id for view in await look(root)] == ["web"]
        assert snapshot(root) == before
        box.kill()
        await box.wait()
        await box.delete()


async def test_after_the_supervisor(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
) -> None:
    """Without a supervisor the look says so, and shows an exit status that no supervisor settled.

    Such a status was once missing, because only an adoption read `exitStatus`.
    """
    path = bundle("sleep", "60").path
    with victim(choice.runtime(), cgroup_parent, root, containers={"web": path}, started=["web"]):
        assert only(await look(root)).supervised
    view = only(await look(root))
    assert (view.state, view.supervised) == (State.RUNNING, False)
    assert view.init is not None and view.init.pid is not None
    os.kill(view.init.pid, signal.SIGKILL)
    with trio.fail_after(10):
        while (view := only(await look(root))).state is not State.STOPPED:
            await trio.sleep(0.01)
    assert view.init is not None and view.init.status is not None
    assert view.init.status.signal == signal.SIGKILL and view.init.pid is None
    assert not Path(view.path, "init/result.json").exists()
    async with supervisor(root) as sup:
        await sup["web"].delete()


@pytest.mark.runtimes("runc", "crun")  # the fake makes no cgroup, the proof of its process
async def test_a_lost_shim(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
) -> None:
    """A look doesn't kill a process whose shim was killed, and still shows its pid."""
    path = bundle("sleep", "60").path
    with victim(choice.runtime(), cgroup_parent, root, containers={"web": path}, started=["web"]):
        pass
    shim = int(Path(root, "web/init/shim").read_text().split()[0])
    os.kill(shim, signal.SIGKILL)
    wait_for(lambda: not held(f"{root}/web/init/shim"), "the shim's death")
    view = only(await look(root))
    assert view.state is State.RUNNING and view.init is not None
    assert "shim is dead" in view.init.evidence
    assert view.init.pid is not None and Path(f"/proc/{view.init.pid}").exists()
    async with supervisor(root) as sup:
        await sup["web"].wait()
        await sup["web"].delete()


async def test_broken_ones_beside_others(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A container that can't be understood is shown with the reason, and the others beside it."""
    async with supervisor(root) as sup:
        for id in ("a", "b"):
            await sup.create(id, bundle("true"))
        Path(root, "a/state.json").write_text("{")
        first, second = await look(root)
        assert first.state is State.BROKEN and first.problem is not None
        assert "state.json" in first.problem and first.init is None
        assert second.state is State.CREATED
        await sup["b"].delete()
        await sup["a"].delete(force=True)
        (root / "c").mkdir(mode=0o777)
        assert [view.state for view in await look(root)] == [State.BROKEN]
        (root / "c").rmdir()


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize("name", ["process.json", "result.json"])
async def test_an_exec_that_cannot_be_understood(
    name: str, supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A bad file of an exec hides the exec, and not the container.

    The look once called the whole container broken, while supervisors showed it running.
    """
    async with supervisor(root) as sup:
        box = await sup.create("web", bundle("sleep", "60"))
        await box.start()
        await box.exec(["sleep", "60"], id="job")
        assert list(only(await look(root)).execs) == ["job"]
        path = root / "web/job" / name
        kept = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        path.write_bytes(b"rubbish")
        view = only(await look(root))
        assert view.state is State.RUNNING and view.init is not None
        assert view.execs == {}
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)
        box.kill()
        await box.wait()
        await box.delete(force=True)


@pytest.mark.runtimes("fake")
async def test_a_shim_file_that_was_spoilt(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A spoilt `shim` file is no proof that the shim has exited: the look gives no exit status."""
    async with supervisor(root) as sup:
        box = await sup.create("web", bundle("sleep", "60"))
        await box.start()
        path = root / "web/init/shim"
        path.rename(root / "web/init/kept")
        path.mkdir()
        view = only(await look(root))
        assert view.state is State.BROKEN and view.problem is not None and "shim" in view.problem
        path.rmdir()
        (root / "web/init/kept").rename(path)
        box.kill()
        await box.wait()
        await box.delete()


@pytest.mark.runtimes("fake")
async def test_a_pid_of_somebody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A look doesn't show a pid on disk that belongs to a process outside the container."""
    async with supervisor(root) as sup:
        box = await sup.create("web", bundle("sleep", "60"))
        await box.start()
        with subprocess.Popen(["sleep", "60"]) as stranger:
            path = Path(root, "web/init/pid")
            real = path.read_text()
            path.write_text(str(stranger.pid))
            view = only(await look(root))
            assert view.init is not None and view.init.pid is None
            assert view.state is State.RUNNING
            path.write_text(real)
            stranger.kill()
        box.kill()
        await box.wait()
        await box.delete()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text(""), "not a directory"),
        (lambda path: (path.mkdir(), path.chmod(0o777)), "others may write"),
        (lambda path: None, "can't be read"),
    ],
    ids=["file", "writable", "missing"],
)
async def test_no_root(make: object, says: str, workdir: Path) -> None:
    """A path that is no root of ours is refused, and nothing is made there."""
    path = workdir / "root"
    assert callable(make)
    make(path)
    existed = path.exists()
    with pytest.raises(InvalidValue, match=says):
        await look(path)
    assert path.exists() == existed


def test_it_is_a_value() -> None:
    """What a look returns can be compared and printed, and needs no supervisor."""
    view = ContainerView(id="a", path="/a", state=State.CREATED)
    assert view == ContainerView(id="a", path="/a", state=State.CREATED)
    assert "CREATED" in repr(view) and library.Bundle is Bundle


@needs_root
def test_a_root_that_cannot_be_read(workdir: Path) -> None:
    """An ordinary user's own root without permissions is refused; once a PermissionError came."""
    path = workdir / "root"
    path.mkdir()
    os.chown(path, 1000, 1000)
    path.chmod(0)

    async def program() -> None:
        with pytest.raises(InvalidValue, match=r"can't be read \(mode 0000\)"):
            await look(path)

    as_user(1000, 1000, program)
