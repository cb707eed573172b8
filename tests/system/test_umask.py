"""Umasks that take even the owner's own bits: our files have their modes all the same.

An ordinary user couldn't open what had just been made; root's files had the mode 0000, and what
the keeper had made stayed in memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import (
    LOG,
    PIPE,
    Bundle,
    InvalidValue,
    Supervisor,
    _leash,
    _open,
    open_supervisor,
)
from supervisor.bundle import content_of
from supervisor.cgroups import Hierarchies, group_apart
from supervisor.directories._temporary import PLACE, Temporary
from supervisor.native import find_binary
from supervisor.state import Block, take
from supervisor.system import Lock
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.homes import Home
from tests.support.runtimes import needs_root
from tests.support.users import as_user

UMASKS = pytest.mark.parametrize("umask", [0o777, 0o477, 0o277, 0o377, 0o077], ids=oct)


@contextlib.contextmanager
def under(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def place(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary directories, where everybody may make some."""
    path = workdir / "place"
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setenv(PLACE, str(path))
    return path


def _odd_modes(root: Path) -> dict[str, str]:
    """Return what below a root hasn't the mode that is promised."""
    odd = {}
    for above, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name != ".runtime"]
        for name in [*directories, *files]:
            path = Path(above, name)
            status = path.lstat()
            wanted = 0o711 if stat.S_ISDIR(status.st_mode) else 0o600
            if stat.S_IMODE(status.st_mode) != wanted:
                odd[str(path.relative_to(root))] = stat.filemode(status.st_mode)
    return odd


@pytest.mark.runtimes("fake", "runc", "crun")
@UMASKS
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "ephemeral"])
async def test_modes(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    place: Path,
    nothing_left: NothingLeft,
    umask: int,
    durable: bool,
) -> None:
    """Files and fifos are 0600 and directories 0711, the root too."""
    made = bundle("sleep", "60")
    with under(umask):
        async with supervisor(root if durable else None) as sup:
            box = await sup.create("a", made, stdin=PIPE, stdout=PIPE, stderr=LOG)
            await box.start()
            await box.exec(["sleep", "60"], id="job", stdin=PIPE, stdout=PIPE, stderr=LOG)
            assert stat.S_IMODE(os.stat(sup.root).st_mode) == 0o711
            assert _odd_modes(Path(sup.root)) == {}
            await box.delete(force=True)
    assert os.listdir(place) == []
    await nothing_left()


@pytest.mark.runtimes("runc", "crun")
@needs_root
@UMASKS
def test_as_an_ordinary_user(
    home: Home, place: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """An ordinary user, whom mode 0000 shuts out, can use supervisors of all kinds under any
    umask."""
    programs = {
        name: str(shutil.copy(find_binary(f"supervisor-{name}"), workdir / "programs"))
        for name in ("keeper", "tether")
    }
    for module in (_leash, _open):
        monkeypatch.setattr(
            module, "find_binary", lambda name: programs[name.removeprefix("supervisor-")]
        )

    async def program() -> None:
        os.umask(umask)
        root = home.path / "root"
        with Bundle.from_rootfs(home.rootfs, ["cat"]) as bundle:
            for where in (None, root):
                async with open_supervisor(where, runtime=home.runtime, shim=home.shim) as sup:
                    box = await sup.create("a", bundle, stdin=PIPE, stdout=PIPE, stderr=LOG)
                    await box.start()
            async with open_supervisor(root, runtime=home.runtime, shim=home.shim) as sup:
                assert await _echo(sup, b"hello\n") == b"hello\n"
                await sup["a"].delete(force=True)
        assert stat.S_IMODE(root.stat().st_mode) == 0o711

    as_user(home.user.pw_uid, home.user.pw_gid, program)
    assert os.listdir(place) == []


async def _echo(sup: Supervisor, text: bytes) -> bytes:
    box = sup["a"]
    assert box.stdin is not None and box.stdout is not None
    await box.stdin.send_all(text)
    heard = b""
    with trio.fail_after(10):
        while len(heard) < len(text):
            heard += await box.stdout.receive_some()
    return heard


@pytest.mark.runtimes("fake")
async def test_what_is_above_the_root(
    supervisor: OpenSupervisor, workdir: Path, nothing_left: NothingLeft
) -> None:
    """Directories above the root follow the umask; a new root doesn't, and an old one is
    unchanged."""
    with under(0o027):
        async with supervisor(workdir / "above/root"):
            pass
    assert stat.S_IMODE((workdir / "above").stat().st_mode) == 0o750
    assert stat.S_IMODE((workdir / "above/root").stat().st_mode) == 0o711
    (workdir / "above/root").chmod(0o700)
    async with supervisor(workdir / "above/root"):
        pass
    assert stat.S_IMODE((workdir / "above/root").stat().st_mode) == 0o700


@needs_root
@pytest.mark.runtimes("fake")
def test_a_root_that_can_not_be_made_leaves_nothing(home: Home) -> None:
    """A directory above the root that shuts its own maker out is removed again."""

    async def program() -> None:
        os.umask(0o777)
        with pytest.raises(InvalidValue, match=r"above/root can't be made .*Permission denied"):
            async with open_supervisor(home.path / "above/root", shim=home.shim, runtime="runc"):
                raise AssertionError("it was opened")
        assert os.listdir(home.path) == []

    as_user(home.user.pw_uid, home.user.pw_gid, program)


@UMASKS
def test_each_alone(place: Path, workdir: Path, umask: int) -> None:
    """A lock and a temporary directory have their modes under any umask."""
    with under(umask):
        with Temporary.make() as made:
            assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o711
        lock = Lock.take(str(workdir / "lock"))
        assert lock is not None
        with lock:
            assert stat.S_IMODE((workdir / "lock").stat().st_mode) == 0o600


@UMASKS
def test_claims(workdir: Path, umask: int) -> None:
    """The records of claimed ids are ours alone."""
    with under(umask):
        claim = take([Block(1, 1, 1)], str(workdir / "a"), directory=str(workdir / "ids"))
    assert claim is not None
    with claim:
        assert stat.S_IMODE((workdir / "ids").stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in (workdir / "ids").iterdir()] == [
            0o600
        ]


@UMASKS
async def test_the_cgroup_of_shims(cgroup_parent: str, umask: int) -> None:
    """An ordinary user must be able to go into what was made for that."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    with under(umask):
        async with group_apart(hierarchies, cgroup_parent) as ways:
            modes = {stat.S_IMODE(Path(way).parent.stat().st_mode) for way in ways}
    assert modes == {0o755}


@UMASKS
def test_where_a_layer_is_shown(rootfs: Path, workdir: Path, umask: int) -> None:
    """The root of a user namespace can pass through the directory of a layer."""
    options = {"path": workdir / "bundle", "writable": "overlay"}
    made = Bundle.from_rootfs(rootfs, ["true"], **options)  # type: ignore[arg-type]
    (workdir / "own").mkdir()
    with under(umask):
        content_of(made).build_rootfs(str(workdir / "own"))
    assert stat.S_IMODE((workdir / "own/rootfs").stat().st_mode) == 0o711
