"""The owner of a bundle's directory, and what is left of the directory."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.bundle import Bundle, _bundle, _directory
from supervisor.directories import _abandoned
from supervisor.directories._temporary import PLACE
from supervisor.system import unescaped
from supervisor.values import DiskFull, InvalidValue
from tests.support.bundle_making import Maker


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def harsh_umask() -> Iterator[None]:
    """A umask that takes everything from everybody else."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("harsh_umask")
def test_a_users_namespace_gets_through(make: Maker, tmp_path: Path) -> None:
    """Whatever the umask, a container's users can pass through the bundle, not list the files."""
    with make() as made:
        assert mode(made.path) == 0o711
    kept = make(path=tmp_path / "deep" / "kept")
    assert mode(kept.path) == 0o711


@pytest.mark.usefixtures("harsh_umask")
def test_a_view_of_the_host_is_open_to_all_users(temporary: Path) -> None:
    """Whatever the umask, every user of a container can read the directories of a view of the
    host."""
    with Bundle.from_host(["sh"]) as made:
        for directory in ("", "etc", "usr", "root"):
            assert mode(Path(made.path, "rootfs", directory)) == 0o755
        assert mode(Path(made.path, "rootfs/tmp")) == 0o1777


def test_close_removes_a_temporary_bundle(make: Maker, temporary: Path) -> None:
    """Closing removes a temporary bundle, once and for all."""
    made = make()
    assert made.temporary
    assert os.path.dirname(made.path) == str(temporary)
    made.close()
    assert not os.path.exists(made.path)
    made.close()


def test_the_garbage_collector_removes_a_temporary_bundle(make: Maker) -> None:
    """A temporary bundle without a reference is removed."""
    made = make()
    path = made.path
    del made
    gc.collect()
    assert not os.path.exists(path)


def test_a_given_directory_stays(make: Maker, tmp_path: Path) -> None:
    """A bundle at a path of the user's is theirs."""
    with make(path=tmp_path / "kept") as made:
        path = made.path
    del made
    gc.collect()
    assert os.path.exists(os.path.join(path, "config.json"))


def test_the_end_of_the_program_removes_it(temporary: Path) -> None:
    """A program that ends without closing leaves no bundle; a forked child removes nothing."""
    program = textwrap.dedent(
        """
        import os, sys
        from supervisor.bundle import Bundle
        made = Bundle.from_host(["sh"])
        child = os.fork()
        if child == 0:
            made.close()
            del made
            sys.exit(0)
        os.waitpid(child, 0)
        assert os.path.exists(made.path + "/config.json")
        print(made.path)
        """
    )
    environment = {**os.environ, PLACE: str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    path = ended.stdout.strip()
    assert os.path.dirname(path) == str(temporary)
    assert not os.path.exists(path)


def test_nothing_is_removed_below_a_mount(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While something is mounted inside, a temporary bundle stays: the mount could be the host's
    /usr."""
    made = make()
    mounted = True
    monkeypatch.setattr(_directory, "mounted_below", lambda directory: mounted)
    made.close()
    assert os.path.exists(os.path.join(made.path, "config.json"))
    mounted = False
    _directory.remove_owned(_directory.Made(made.path), os.getpid())
    assert not os.path.exists(made.path)


def test_nothing_is_removed_unseen(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the mounts can't be read, a temporary bundle stays."""

    def refuse(directory: str) -> bool:
        raise OSError(24, "Too many open files")

    made = make()
    monkeypatch.setattr(_directory, "mounted_below", refuse)
    made.close()
    assert os.path.exists(made.path)
    monkeypatch.undo()
    _directory.remove_owned(_directory.Made(made.path), os.getpid())


def test_mounts_below_are_seen() -> None:
    """A mount inside a directory is found; a mount on the directory doesn't count as inside."""
    assert _abandoned.mounted_below("/")
    assert not _abandoned.mounted_below("/proc/self/task")
    assert unescaped(r"/a\040b\134040") == r"/a b\040"


def test_a_bundle_is_not_overwritten(make: Maker, tmp_path: Path) -> None:
    """Where a config.json stands, no bundle is made."""
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(InvalidValue, match="path: there is a bundle at"):
        make(path=tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_a_root_filesystem_is_not_overwritten(tmp_path: Path) -> None:
    """Where a root filesystem stands, no view of the host is made."""
    (tmp_path / "rootfs").mkdir()
    with pytest.raises(InvalidValue, match=r"path: there is a rootfs in .*: load the bundle"):
        Bundle.from_host(["sh"], path=tmp_path)
    assert os.listdir(tmp_path / "rootfs") == []


def test_a_file_in_place_of_the_directory(make: Maker, tmp_path: Path) -> None:
    """A file isn't replaced by a directory."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidValue, match=r"path: .*file is not a directory"):
        make(path=tmp_path / "file")
    with pytest.raises(InvalidValue, match=r"path: .*file/below is not a directory"):
        make(path=tmp_path / "file" / "below")


def test_what_stands_in_the_directory_stays(make: Maker, tmp_path: Path) -> None:
    """A directory of the user's keeps the mode and all other files."""
    target = tmp_path / "mine"
    target.mkdir(mode=0o750)
    (target / "notes").touch()
    make(path=target)
    assert mode(target) == 0o750
    assert (target / "notes").exists()


@pytest.mark.parametrize("given", [True, False], ids=["given", "temporary"])
def test_a_full_disk_leaves_nothing(
    make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    """When the config can't be written, all that was made is removed, and nothing else."""

    def refuse(path: str, data: bytes) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(_bundle, "write_whole", refuse)
    target = tmp_path / "mine"
    target.mkdir()
    (target / "notes").touch()
    with pytest.raises(DiskFull):
        make(path=target if given else None)
    assert os.listdir(target) == ["notes"]
    if given:
        with pytest.raises(DiskFull):
            make(path=tmp_path / "new")
        assert not (tmp_path / "new").exists()
