"""What the keeper trusts: only our own files, by owner, mode and kind, wherever they were opened.

The keeper ran the `cleanup` lists of any directory at the root's name: a local user who was quick
enough with a rename became root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.keeper import KeeperRig, patient
from tests.native.programs import Programs
from tests.support.leaks import wait_for

STRANGER = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
Spoil = Callable[[Path], None]


def _foreign(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def _group_writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def _writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _linked(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


spoils = pytest.mark.parametrize("spoil", [_foreign, _group_writable, _writable, _linked])


def _container(keeper: KeeperRig, tmp_path: Path) -> Path:
    return keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])


@root_only
@spoils
def test_a_directory_of_somebody_else(keeper: KeeperRig, tmp_path: Path, spoil: Spoil) -> None:
    """The keeper works off no list of a foreign directory, and removes nothing there."""
    box = _container(keeper, tmp_path)
    spoil(box)
    keeper.clean()
    assert not (tmp_path / "ran").exists()
    assert (box / "cleanup").exists() and (box / "lock").exists()


@pytest.mark.parametrize("before", [0, *range(16300, 16390, 6)], ids=str)
@pytest.mark.parametrize("slash", ["/", r"\/", r"\u002f", r"\u002F"])
def test_a_path_that_a_runtime_has_escaped(
    keeper: KeeperRig, tmp_path: Path, slash: str, before: int
) -> None:
    """The keeper reads a path that crun or Go has escaped (newer crun writes a slash as backslash
    and slash, Go other characters by number), and once left such containers as foreign. The keeper
    reads 16 KiB at a time."""
    known = tmp_path / "known"
    known.mkdir()
    bundle = f"{tmp_path}/<box>\u2028é/bundle"
    text = bundle.replace("<", r"\u003c").replace("\u2028", r"\u2028").replace("é", r"\u00e9")
    text = text.replace("/", slash)
    (known / "status").write_text("{" + " " * before + f'"bundle": "{text}"}}')
    ran = tmp_path / "ran"
    keeper.container("box", ["owned", str(known), bundle, "/bin/touch", str(ran)])
    keeper.container("other", ["owned", str(known), bundle[:-1], "/bin/touch", f"{ran}-wrongly"])
    keeper.clean()
    assert ran.exists() and not (tmp_path / "ran-wrongly").exists()


@root_only
@spoils
def test_a_list_of_somebody_else(keeper: KeeperRig, tmp_path: Path, spoil: Spoil) -> None:
    """The file decides what is run as us."""
    box = _container(keeper, tmp_path)
    spoil(box / "cleanup")
    keeper.clean()
    assert not (tmp_path / "ran").exists()
    assert box.exists()


@root_only
@spoils
def test_a_lock_of_somebody_else(keeper: KeeperRig, tmp_path: Path, spoil: Spoil) -> None:
    """A lock that another user may replace doesn't count, because that user could fake a free
    lock."""
    box = _container(keeper, tmp_path)
    spoil(box / "lock")
    keeper.clean()
    assert not (tmp_path / "ran").exists()


@root_only
@pytest.mark.parametrize("name", [".new-x", ".deleted-x", ".new-"])
@pytest.mark.parametrize("spoil", [_foreign, _writable])
@pytest.mark.parametrize("full", [False, True])
def test_temporary_names_of_somebody_else(
    keeper: KeeperRig, name: str, spoil: Spoil, full: bool
) -> None:
    """A name makes nothing ours; an empty directory stays too."""
    path = keeper.root / name
    path.mkdir()
    if full:
        (path / "precious").touch()
    spoil(path)
    keeper.clean()
    assert os.listdir(path) == (["precious"] if full else [])


@root_only
@pytest.mark.parametrize("spoil", [_foreign, _writable])
def test_a_root_of_somebody_else(keeper: KeeperRig, tmp_path: Path, spoil: Spoil) -> None:
    """A keeper with a foreign root ends at once and never becomes ready."""
    _container(keeper, tmp_path)
    spoil(keeper.root)
    keeper.launch("remove-root")
    assert keeper.wait_gone() == 1
    assert not (tmp_path / "ran").exists() and (keeper.root / "box/cleanup").exists()


def test_another_directory_at_its_name(keeper: KeeperRig, tmp_path: Path) -> None:
    """The keeper cleans up the root that was given, and doesn't touch a later directory of that
    name."""
    keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    keeper.launch("remove-root")
    keeper.wait_ready()
    keeper.root.rename(tmp_path / "moved")
    keeper.root.mkdir()
    (keeper.root / "box").mkdir()
    (keeper.root / "box/cleanup").write_bytes(os.fsencode(f"run\0/bin/touch\0{tmp_path}/evil\0\0"))
    keeper.leash.let_go()
    assert keeper.wait_gone() == 0
    assert (tmp_path / "ran").exists() and not (tmp_path / "evil").exists()
    assert (keeper.root / "box/cleanup").exists()
    assert os.listdir(tmp_path / "moved") == []


@root_only
def test_a_bundle_whose_place_somebody_took(keeper: KeeperRig, tmp_path: Path) -> None:
    """A temporary bundle that was swept, and has a foreign directory at its name now, is left
    alone."""
    taken = tmp_path / "bundle"
    taken.mkdir()
    (taken / "precious").touch()
    _foreign(taken)
    keeper.container("box", ["remove", str(taken)])
    keeper.clean()
    assert (taken / "precious").exists()


@pytest.mark.parametrize(("levels", "length"), [(200, 250), (1000, 1)])
def test_any_depth(keeper: KeeperRig, levels: int, length: int) -> None:
    """A tree that no path can name goes, and one of many levels."""
    fd = os.open(keeper.root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        name = "d" * length
        os.mkdir(name, dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    keeper.clean("remove-root")
    assert not keeper.root.exists()


def test_nobodys_child(keeper: KeeperRig, programs: Programs, tmp_path: Path) -> None:
    """In the background the keeper is no child of the launcher; a pipe reports the pid and the
    end."""
    keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    told, ready = os.pipe()
    try:
        launcher = subprocess.Popen(
            [
                programs.keeper,
                f"{keeper.leash}:{keeper.directory}:{ready}",
                str(keeper.root),
                "remove-root",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=programs.environment,
            pass_fds=(*keeper.leash.fds, keeper.directory, ready),
        )
        os.close(ready)
        pid = int(os.read(told, 64))
        assert launcher.wait() == 0 and pid != launcher.pid
        assert os.getsid(pid) == pid
        keeper.leash.let_go()
        assert os.read(told, 64) == b""
    finally:
        os.close(told)
    assert (tmp_path / "ran").exists()
    wait_for(lambda: not keeper.root.exists(), "the root's removal")


@patient
def test_a_group_that_is_renamed_meanwhile(keeper: KeeperRig, tmp_path: Path) -> None:
    """The walk ends at its first directory; it once went on to the root of the hierarchy, and
    killed.

    Directories stand for the groups here: a directory that isn't empty is like a group in use.
    """
    leaf = tmp_path / "groups/top/leaf"
    leaf.mkdir(parents=True)
    (leaf / "busy").touch()
    (tmp_path / "groups/sibling").mkdir()
    keeper.container("box", ["cgroup", str(tmp_path / "groups/top")])
    keeper.launch()
    keeper.leash.let_go()
    keeper.wait_waiting(leaf)
    (tmp_path / "groups/top").rename(tmp_path / "groups/other")
    (tmp_path / "groups/other/leaf/busy").unlink()
    assert keeper.wait_gone() == 0
    assert os.listdir(tmp_path / "groups") == ["sibling"]
