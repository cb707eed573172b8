"""Two supervisors whose runtime has one ``--root``: neither removes the containers of the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from supervisor import Container, ContainerExists, Runtime, RuntimeFailed, State
from supervisor.container import _create
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import Choice, needs_root
from tests.support.victim import Victims

# An id that no other test on this machine uses meanwhile.
ID = f"web-{os.getpid()}"


@pytest.fixture
def shared(choice: Choice, workdir: Path) -> Runtime:
    """The test's runtime, with a root that others use too."""
    return attrs.evolve(choice.runtime(), root=str(workdir / "runtime-root"))


async def is_well(container: Container) -> bool:
    """Whether the container runs, and the runtime knows the container: for the state is what gets
    lost."""
    assert (container.state, container.status) == (State.RUNNING, None)
    done = await container.run(["true"], capture_stdout=True)
    return done.returncode == 0


def forget(runtime: Runtime, id: str) -> Path:
    """Delete a container by hand; return the directory of the runtime's state."""
    assert runtime.root is not None
    command = [runtime.path, "--root", runtime.root, "delete", "--force", id]
    subprocess.run(command, check=True)
    return Path(runtime.root, id)


async def test_a_taken_id_is_refused_before_anything_is_made(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """A taken id is refused before anything is made: once the undo of a failed create deleted the
    other supervisor's running container."""
    async with (
        supervisor(workdir / "one", runtime=shared) as one,
        supervisor(workdir / "two", runtime=shared) as two,
    ):
        web = await one.create("web", bundle("sleep", "60"))
        await web.start()
        with pytest.raises(ContainerExists, match="runtime-root"):
            await two.create("web", bundle("sleep", "60"))
        assert (list(two), dict(two.broken)) == ([], {})
        assert not Path(two.root, "web").exists()
        assert await is_well(web)
        await web.delete(force=True)
        again = await two.create("web", bundle("true"))
        await again.delete()


async def test_taken_between_the_look_and_the_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the id is taken between the look and the create, the runtime refuses, and the undo leaves
    the other container alone."""
    monkeypatch.setattr(_create, "require_free", lambda *_: None)
    async with (
        supervisor(workdir / "one", runtime=shared) as one,
        supervisor(workdir / "two", runtime=shared) as two,
    ):
        web = await one.create("web", bundle("sleep", "60"))
        await web.start()
        with pytest.raises(RuntimeFailed):
            await two.create("web", bundle("sleep", "60"))
        assert (list(two), dict(two.broken)) == ([], {})
        assert await is_well(web)
        await web.delete(force=True)


async def test_deleted_by_hand_and_taken_by_somebody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """If a container was deleted by hand and the id taken again, the runtime's state isn't ours any
    more, and is left."""
    async with (
        supervisor(workdir / "one", runtime=shared) as one,
        supervisor(workdir / "two", runtime=shared) as two,
    ):
        mine = await one.create("web", bundle("true"))
        await mine.start()
        await mine.wait()
        forget(shared, "web")
        other = await two.create("web", bundle("sleep", "60"))
        await other.start()
        await mine.delete()
        assert await is_well(other)
        await other.delete(force=True)


@contextlib.contextmanager
def creating(id: str) -> Iterator[None]:
    """Run a slow create of that id, as another program's."""
    command = [sys.executable, "-c", "input()", "create", id]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
        process.communicate(b"\n")


@contextlib.contextmanager
def begun_again(shared: Runtime, id: str, files: Sequence[str] = ()) -> Iterator[Path]:
    """Make what a create makes first, in place of the runtime's state of a container."""
    begun = forget(shared, id)
    begun.mkdir()
    os.mkfifo(begun / "exec.fifo")
    for name in files:
        (begun / name).write_text("")
    yield begun
    shutil.rmtree(begun, ignore_errors=True)


async def test_what_somebody_is_creating_is_left(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A delete that finds a state's directory while another create of the id runs warns, and
    deletes nothing."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create(ID, bundle("true"))
        with begun_again(shared, ID) as begun, creating(ID):
            await mine.delete(force=True)
            assert os.listdir(begun) == ["exec.fifo"] and str(begun) in caplog.text


@pytest.mark.parametrize(
    "name", ["state.json", "config.json", "runc.a1B2c", "state-8a", "something"]
)
async def test_what_is_nobodys_for_certain_is_left(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """A delete leaves a state of an unfinished create that doesn't name our bundle."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create(ID, bundle("true"))
        with begun_again(shared, ID) as begun:
            (begun / name).write_text("{}")
            await mine.delete(force=True)
            assert (begun / name).read_text() == "{}" and str(begun) in caplog.text


@pytest.mark.parametrize(
    "files",
    [(), ("config.json",), ("runc.a1B2c3",), ("state-8602",)],
    ids=["fifo", "empty file", "runc", "state"],
)
async def test_what_a_killed_create_has_begun_is_removed(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    files: Sequence[str],
) -> None:
    """A delete removes the beginnings of a killed create: no create of the id runs, and the id
    would stay taken."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create(ID, bundle("true"))
        with begun_again(shared, ID, files) as begun, creating(f"{ID}-2"):
            await mine.delete(force=True)
            assert not begun.exists()
        again = await one.create(ID, bundle("true"))
        await again.delete()


@pytest.mark.runtimes("runc")
@needs_root
@pytest.mark.parametrize("keeper", [False, True], ids=["delete", "keeper"])
@pytest.mark.parametrize("begun", [False, True], ids=["made", "begun"])
async def test_a_copy_that_a_killed_runc_left_mounted(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    cgroup_parent: str,
    victim: Victims,
    begun: bool,
    keeper: bool,
) -> None:
    """A delete, and the keeper, detach a copy that a killed runc has left mounted: once runc could
    not remove the state, the id stayed taken, and the mount stayed on the host."""
    root = workdir / "one"
    assert shared.root is not None
    copy = Path(shared.root, ID, "runc.a1B2c3")

    def leave_a_copy() -> None:
        if begun:
            forget(shared, ID).mkdir()
        copy.touch()
        subprocess.run(["mount", "--bind", shared.path, copy], check=True)

    if keeper:
        with victim(
            shared, cgroup_parent, root, leash=True, containers={ID: bundle("sleep", "60").path}
        ):
            leave_a_copy()
        await until(lambda: not (root / ID).exists(), "the keeper has cleaned up")
    else:
        async with supervisor(root, runtime=shared) as one:
            mine = await one.create(ID, bundle("true"))
            leave_a_copy()
            await mine.delete(force=True)
    assert not os.path.lexists(copy.parent)
    assert str(copy) not in Path("/proc/self/mountinfo").read_text()


async def test_what_was_finished_while_we_looked_is_left(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A state that was finished during the look is left: what was seen before doesn't count."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create(ID, bundle("true"))
        with begun_again(shared, ID) as begun:

            def finish(word: str) -> bool:
                (begun / "state.json").write_text("{}")
                return False

            monkeypatch.setattr("supervisor.container._proof.is_argument", finish)
            await mine.delete(force=True)
            assert sorted(os.listdir(begun)) == ["exec.fifo", "state.json"]


@pytest.mark.parametrize("busy", [False, True], ids=["nobody", "somebody"])
async def test_the_keeper_removes_what_was_begun(
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    cgroup_parent: str,
    victim: Victims,
    busy: bool,
) -> None:
    """The keeper of a killed supervisor removes such beginnings too."""
    with contextlib.ExitStack() as stack:
        root, box = workdir / "one", {ID: bundle("sleep", "60").path}
        with victim(shared, cgroup_parent, root, leash=True, containers=box):
            begun = stack.enter_context(
                begun_again(shared, ID, ["config.json", "runc.a1B2c3", "state-86"])
            )
            if busy:
                stack.enter_context(creating(ID))
        await until(lambda: not (root / ID).exists(), "the keeper has cleaned up")
        assert begun.exists() == busy


async def test_what_a_killed_create_of_ours_has_left_is_removed(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """The state of our own killed create, unknown to the runtime but with our bundle's name, is
    removed."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create("web", bundle("true"))
        begun = forget(shared, "web")
        begun.mkdir()
        (begun / "config.json").write_text(
            f'{{"root": {{"path": "{mine._core.layout.bundle}/r"}}}}'
        )
        await mine.delete(force=True)
        assert not begun.exists()


async def test_what_a_runtime_copies_first_names_its_bundle(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """crun's copy of the spec, all that a killed create leaves, names our bundle: the root
    filesystem in the spec is the user's own."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create("web", bundle("true"))
        spec = Path(mine._core.layout.config).read_bytes()
        begun = forget(shared, "web")
        begun.mkdir()
        (begun / "config.json").write_bytes(spec)
        await mine.delete(force=True)
        assert not begun.exists()


@pytest.mark.parametrize("taken", [False, True], ids=["ours", "anothers"])
async def test_the_keeper_too(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    cgroup_parent: str,
    victim: Victims,
    taken: bool,
) -> None:
    """The keeper of a killed supervisor deletes a state that names the keeper's own bundle, and no
    other."""
    assert shared.root is not None
    place, root = Path(shared.root, "web"), workdir / "one"
    spec = bundle("sleep", "60")
    other = None
    async with supervisor(workdir / "two", runtime=shared) as two:
        with victim(
            shared, cgroup_parent, root, leash=True, containers={"web": spec.path}, started=["web"]
        ):
            assert place.is_dir()
            if taken:
                forget(shared, "web")
                other = await two.create("web", bundle("sleep", "60"))
                await other.start()
        await until(lambda: not (root / "web").exists(), "the keeper has cleaned up")
        assert place.is_dir() == taken
        if other is not None:
            assert await is_well(other)
            await other.delete(force=True)
