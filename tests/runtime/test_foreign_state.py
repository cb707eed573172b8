"""A runtime believes its own state of a container, which holds hooks: so the state must be ours.

A foreign user's directory in the place of a runtime's state once had its hook run as root by a
delete, and was deleted; a failed create killed another supervisor's container.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from supervisor import CleanupIncomplete, ContainerExists, InvalidValue, State
from supervisor.cgroups import Hierarchies
from supervisor.container._proof import is_ours
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import Choice
from tests.support.victim import Victims

pytestmark = [
    pytest.mark.runtimes("runc", "crun"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user"),
]

STRANGER = 65534

Spoil = Callable[[Path], None]


def _foreign(place: Path) -> None:
    os.chown(place, STRANGER, STRANGER)


def _writable(place: Path) -> None:
    place.chmod(0o777)


def _foreign_state(place: Path) -> None:
    for path in place.iterdir():
        os.chown(path, STRANGER, STRANGER)


def _linked(place: Path) -> None:
    place.rename(place.with_name("moved"))
    place.symlink_to("moved")


def mend(place: Path, *, mode: int) -> None:
    """Make the state ours again."""
    if place.is_symlink():
        place.unlink()
        place.with_name("moved").rename(place)
    place.chmod(mode)
    for path in (place, *place.iterdir()):
        os.chown(path, 0, 0)


spoils = pytest.mark.parametrize("spoil", [_foreign, _writable, _foreign_state, _linked])


@spoils
async def test_it_is_not_shown_to_a_runtime(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, spoil: Spoil
) -> None:
    """A delete with a foreign state names the owner, and leaves the state; once it is ours again,
    the delete is done."""
    place = root / ".runtime/web"
    async with supervisor(root) as sup:
        web = await sup.create("web", bundle("sleep", "60"))
        await web.start()
        mode = place.stat().st_mode & 0o7777
        spoil(place)
        with pytest.raises(CleanupIncomplete, match="was not made by us, and is left as it is"):
            await web.delete(force=True)
        assert place.exists() and str(place) in sup.broken["web"].reason
        mend(place, mode=mode)
        await sup.delete_broken("web")
        assert not place.exists()


async def test_nothing_is_made_where_there_is_something(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A create refuses an id whose state exists already: once the runtime's create failed, and the
    undo deleted that state."""
    place = root / ".runtime/web"
    async with supervisor(root) as sup:
        place.mkdir(parents=True, mode=0o700)
        (place / "state.json").write_text("forged")
        os.chown(place, STRANGER, STRANGER)
        with pytest.raises(ContainerExists, match="has a container of that id, which isn't ours"):
            await sup.create("web", bundle("true"))
        assert (place / "state.json").read_text() == "forged"
        assert (list(sup), dict(sup.broken)) == ([], {})
        (place / "state.json").unlink()
        place.rmdir()


async def test_somebody_who_names_our_own_runtime_root(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, choice: Choice
) -> None:
    """Another supervisor may use our runtime root: the containers there aren't ours just because of
    the place."""
    shared = attrs.evolve(choice.runtime(), root=str(root / ".runtime"))
    async with supervisor(root) as mine, supervisor(workdir / "two", runtime=shared) as two:
        other = await two.create("web", bundle("sleep", "60"))
        await other.start()
        with pytest.raises(ContainerExists):
            await mine.create("web", bundle("true"))
        assert (other.state, other.status) == (State.RUNNING, None)
        own = await mine.create("own", bundle("true"))
        await own.delete(force=True)
        await other.delete(force=True)


async def test_what_names_another_bundle_is_left(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    choice: Choice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A delete leaves a state that names another bundle: our container was deleted by hand, and
    another one made under the id."""
    shared = attrs.evolve(choice.runtime(), root=str(root / ".runtime"))
    async with supervisor(root) as mine, supervisor(workdir / "two", runtime=shared) as two:
        web = await mine.create("web", bundle("true"))
        command = [shared.path, "--root", str(shared.root), "delete", "--force", "web"]
        subprocess.run(command, check=True)
        other = await two.create("web", bundle("sleep", "60"))
        await other.start()
        await web.delete(force=True)
        assert (other.state, other.status) == (State.RUNNING, None)
        assert "may be another program's" in caplog.text
        await other.delete(force=True)


@spoils
async def test_the_keeper_does_not_show_it_either(
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    spoil: Spoil,
) -> None:
    """The keeper of a killed program doesn't show a foreign state to a runtime either."""
    place = root / ".runtime/web"
    path = bundle("sleep", "60").path
    with victim(
        choice.runtime(), cgroup_parent, root, leash=True, containers={"web": path}, started=["web"]
    ):
        spoil(place)
    await until(lambda: not (root / "web").exists(), "the keeper has cleaned up")
    assert any(place.iterdir())


@pytest.mark.parametrize("spoil", [_foreign, _writable])
async def test_a_runtime_root_that_is_named(
    supervisor: OpenSupervisor, workdir: Path, choice: Choice, spoil: Spoil
) -> None:
    """A named runtime root that another user could change, or exchange, is refused."""
    named = workdir / "named"
    named.mkdir()
    spoil(named)
    for place in (named, named / "in/it"):
        runtime = attrs.evolve(choice.runtime(), root=str(place))
        with pytest.raises(InvalidValue, match=r"Runtime\(root=.* isn't safe"):
            async with supervisor(workdir / "root", runtime=runtime):
                pass
    assert not (workdir / "root").exists()


async def test_a_cgroup_that_somebody_is_in(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A create refuses a cgroup that has processes: once the delete killed them."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    async with supervisor(root) as sup:
        web = await sup.create("web", bundle("true"))
        cgroup = web._core.record.cgroup
        assert cgroup is not None
        await web.delete(force=True)
        place = next(Path(path) for path in hierarchies.directories(cgroup) if "cpuset" not in path)
        place.mkdir()
        with subprocess.Popen(["sleep", "60"]) as stranger:
            (place / "cgroup.procs").write_text(str(stranger.pid))
            with pytest.raises(ContainerExists, match=f"1 processes .* for example {stranger.pid}"):
                await sup.create("web", bundle("true"))
            assert stranger.poll() is None
            assert (list(sup), dict(sup.broken)) == ([], {})
            stranger.kill()
        await (await sup.create("web", bundle("true"))).delete(force=True)
        assert not place.exists()


async def test_a_file_of_ours_is_no_strangers(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A plain file in the place of a state, or an unknown one, is the runtime's business, and not
    foreign."""
    async with supervisor(root) as sup:
        web = await sup.create("web", bundle("true"))
        core = web._core
        assert core.lock is not None
        place = root / ".runtime/web"
        moved = place.rename(root / ".runtime/moved")
        place.touch()
        assert await is_ours(core)
        place.unlink()
        moved.rename(place)
        await web.delete(force=True)


@pytest.mark.parametrize("slash", ["/", r"\/", r"\u002f"])
@pytest.mark.parametrize("name", ["state.json", "status"])
async def test_a_path_that_a_runtime_has_escaped(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, name: str, slash: str
) -> None:
    """Newer crun escapes slashes in the bundle's path, and the container is still ours: once every
    one seemed foreign."""
    async with supervisor(root) as sup:
        web = await sup.create("web", bundle("true"))
        core = web._core
        assert core.lock is not None
        place = root / ".runtime/web"
        moved = place.rename(root / ".runtime/moved")
        place.mkdir(mode=0o700)
        ours = core.layout.bundle.replace("/", slash)
        for path, right in [(ours, True), (ours + slash + "x", True), (ours + "x", False)]:
            (place / name).write_text(f'{{"bundle": "{path}"}}')
            assert await is_ours(core) is right
        (place / name).unlink()
        place.rmdir()
        moved.rename(place)
        await web.delete(force=True)
