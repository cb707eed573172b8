"""Temporary directories of ours: where they lie, how they are owned, and how they are kept from
being swept.

Ephemeral roots once lay in /tmp, and were aged away under a running supervisor; any user could make
a directory of the same name.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.directories import _temporary
from supervisor.directories._temporary import PLACE, Temporary, places
from supervisor.values._errors import InvalidValue

STRANGER = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for runtime files of an ordinary user, with no variable that names another
    place."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.delenv(PLACE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.setattr(_temporary, "_above", lambda: os.environ.get("XDG_RUNTIME_DIR", ""))
    return path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A list of the directories in memory, for the test to fill. The shared memory is a directory
    of ours."""
    shared = tmp_path / "shm"
    shared.mkdir()
    shared.chmod(0o1777)
    found: set[str] = set()
    monkeypatch.setattr(_temporary, "_SHARED_MEMORY", str(shared))
    monkeypatch.setattr(_temporary, "_is_in_memory", lambda path: path in found)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that the environment names."""
    path = tmp_path / "place"
    path.mkdir()
    monkeypatch.setenv(PLACE, str(path))
    return path


def test_order(run: Path, memory: set[str], tmp_path: Path) -> None:
    """The order of places: a directory of ours in memory; the shared memory; a directory of ours on
    a disk."""
    own, shared = str(run / "trio-supervisor"), str(tmp_path / "shm")
    assert places() == [own]
    assert os.stat(own).st_mode & 0o7777 == 0o711
    memory.add(shared)
    assert places() == [shared]
    memory.add(own)
    assert places() == [own, shared]


@pytest.mark.parametrize("named", ["", "run", "missing"])
def test_without_a_directory_for_runtime_files(
    run: Path, memory: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Without an absolute directory for runtime files, the last place is that of temporary
    files."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", named if named != "missing" else str(run / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert places() == [str(tmp_path)]


def test_links_to_it(run: Path, memory: set[str], tmp_path: Path) -> None:
    """A link isn't accepted as a directory of ours, because its target may change."""
    (run / "trio-supervisor").symlink_to(tmp_path)
    memory.update({str(run / "trio-supervisor"), str(tmp_path / "shm")})
    assert places() == [str(tmp_path / "shm")]


@root_only
@pytest.mark.parametrize("which", ["run", "run/trio-supervisor"])
@pytest.mark.parametrize("spoil", ["owner", "mode"])
def test_a_place_of_somebody_else(
    run: Path, memory: set[str], tmp_path: Path, which: str, spoil: str
) -> None:
    """A place that belongs to another user, or where others may write, isn't used, and stays
    unchanged."""
    shared, path = str(tmp_path / "shm"), tmp_path / which
    path.mkdir(exist_ok=True)
    memory.update({str(run / "trio-supervisor"), shared})
    if spoil == "owner":
        os.chown(path, STRANGER, STRANGER)
    else:
        path.chmod(0o777)
    assert places() == [shared]
    assert os.listdir(path) == []


@root_only
def test_shared_memory_of_somebody_else(run: Path, memory: set[str], tmp_path: Path) -> None:
    """Shared memory isn't used if it is a stranger's, or if every user may rename there."""
    shared = tmp_path / "shm"
    memory.add(str(shared))
    shared.chmod(0o777)
    assert places() == [str(run / "trio-supervisor")]
    shared.chmod(0o1777)
    os.chown(shared, STRANGER, STRANGER)
    assert places() == [str(run / "trio-supervisor")]


@pytest.mark.parametrize("named", ["relative", "/proc/self/missing", "/etc/passwd"])
def test_a_named_place_that_is_none(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """A named place that can't be used raises an error with the reason."""
    monkeypatch.setenv(PLACE, named)
    with pytest.raises(InvalidValue, match=PLACE):
        Temporary.make()


def test_an_unsafe_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named place where others may rename is refused: they could exchange our directory at any
    time."""
    place.chmod(0o777)
    with pytest.raises(InvalidValue, match=rf"others may write to {place}.*{PLACE}"):
        Temporary.make()
    place.chmod(0o1777)
    Temporary.make().remove()
    assert os.listdir(place) == []


def test_an_unsafe_last_resort(
    run: Path, memory: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsafe TMPDIR isn't used either."""
    unsafe = tmp_path / "tmp"
    unsafe.mkdir()
    unsafe.chmod(0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(unsafe))
    with pytest.raises(InvalidValue, match=PLACE):
        Temporary.make()
    assert os.listdir(unsafe) == []


def test_a_name_that_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in use, by a directory, a link or a fifo, is skipped, and what is there stays."""
    names = iter(["directory", "link", "fifo", "dangling", "free"])
    monkeypatch.setattr(_temporary, "paths", lambda: (str(place / name) for name in names))
    (place / "directory").mkdir()
    (place / "link").symlink_to(place / "directory")
    (place / "dangling").symlink_to(place / "nowhere")
    os.mkfifo(place / "fifo")
    with Temporary.make() as made:
        assert made.path == str(place / "free")
        assert os.stat(made.path).st_mode & 0o7777 == 0o711
    assert sorted(os.listdir(place)) == ["dangling", "directory", "fifo", "link"]


@root_only
def test_another_one_than_was_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that another user exchanged for the one that we made isn't taken for ours."""
    make = _temporary._make

    def swapped() -> str:
        path = make()
        os.rename(path, f"{path}.moved")
        os.mkdir(path)
        os.chown(path, STRANGER, STRANGER)
        (Path(path) / "precious").touch()
        return path

    monkeypatch.setattr(_temporary, "_make", swapped)
    with pytest.raises(InvalidValue, match=f"belongs to uid {STRANGER}"):
        Temporary.make()
    assert [path.name for path in place.glob("*/precious")] == ["precious"]


def test_removing_another_one(place: Path) -> None:
    """A removal leaves a directory that has taken the name since."""
    made = Temporary.make()
    os.rename(made.path, place / "moved")
    os.mkdir(made.path)
    made.remove()
    assert os.path.isdir(made.path) and (place / "moved").is_dir()


def _is_locked(path: str) -> bool:
    """Whether systemd-tmpfiles would leave the directory: it tries to lock what it is about to
    clean."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_it_is_locked(place: Path) -> None:
    """A directory is locked as long as it is open; a forked child doesn't keep the lock."""
    with Temporary.make() as made:
        assert _is_locked(made.path)
        child = os.fork()
        if child == 0:
            os._exit(0 if made.fd == -1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        made.close()
        assert not _is_locked(made.path)
        os.rmdir(made.path)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    path.mkdir()
    return path


def test_a_bundle_that_might_be_swept_is_locked(place: Path, rootfs: Path) -> None:
    """A bundle in /tmp is locked as long as it exists: once it wasn't, and was removed after ten
    days."""
    with Bundle.from_rootfs(rootfs, ["true"]) as made:
        assert _is_locked(made.path)
    assert os.listdir(place) == []


def test_where_nobody_sweeps_a_bundle_takes_no_descriptor(
    run: Path, memory: set[str], rootfs: Path
) -> None:
    """In a place that is never swept a bundle needs no descriptor: there may be thousands of
    bundles."""
    memory.add(str(run / "trio-supervisor"))
    before = len(os.listdir("/proc/self/fd"))
    with Bundle.from_rootfs(rootfs, ["true"]) as made:
        assert os.path.dirname(made.path) == str(run / "trio-supervisor")
        assert len(os.listdir("/proc/self/fd")) == before


def test_it_says_where(
    run: Path, memory: set[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A log line names the place, where that isn't the first choice."""
    memory.add(str(tmp_path / "shm"))
    with caplog.at_level("INFO", "supervisor"):
        places()
    assert str(tmp_path / "shm") in caplog.text


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Forget what a test has logged, so that the next test logs again."""
    _temporary._say.cache_clear()
    yield
    _temporary._say.cache_clear()
