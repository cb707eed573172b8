"""Two supervisors whose runtime has one ``--root``: nobody removes what is the other's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs
import pytest

from supervisor import (
    Container,
    ContainerExists,
    Runtime,
    RuntimeFailed,
    State,
    _supervisor,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.failures.helpers import until
from tests.support.runtimes import Choice
from tests.support.victim import victim


@pytest.fixture
def shared(choice: Choice, workdir: Path) -> Runtime:
    """The test's runtime, with a root that others use too."""
    return attrs.evolve(choice.runtime(), root=str(workdir / "runtime-root"))


async def is_well(container: Container) -> bool:
    """Whether it runs, and its runtime knows it: for that is what gets lost."""
    assert (container.state, container.status) == (State.RUNNING, None)
    done = await container.run(["true"], capture_stdout=True)
    return done.returncode == 0


def forget(runtime: Runtime, id: str) -> Path:
    """Delete a container by hand; return where the runtime has kept what it knew of it."""
    assert runtime.root is not None
    command = [runtime.path, "--root", runtime.root, "delete", "--force", id]
    subprocess.run(command, check=True)
    return Path(runtime.root, id)


async def test_a_taken_id_is_refused_before_anything_is_made(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """A create that failed, since the id was taken, deleted the other one's running container."""
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
    """Then it is the runtime that refuses, and the undo leaves the other one's container alone."""
    monkeypatch.setattr(_supervisor, "require_free", lambda *_: None)
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
    """What the runtime knows under the id now isn't ours, whatever it was when we made it."""
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


async def test_what_is_nobodys_for_certain_is_left(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    workdir: Path,
    shared: Runtime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another one's create may just have made its directory: that is said, and nothing deleted."""
    async with supervisor(workdir / "one", runtime=shared) as one:
        mine = await one.create("web", bundle("true"))
        begun = forget(shared, "web")
        begun.mkdir()
        await mine.delete(force=True)
        assert begun.is_dir() and str(begun) in caplog.text
        begun.rmdir()


async def test_what_a_killed_create_of_ours_has_left_is_removed(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, shared: Runtime
) -> None:
    """The runtime doesn't know it, but it names our bundle."""
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
    """crun's copy of the spec is all that a killed create leaves; its root is the user's own."""
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
    taken: bool,
) -> None:
    """A killed supervisor's keeper deletes what names its own bundle, and nothing else."""
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
