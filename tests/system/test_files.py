"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.system import write_whole
from supervisor.system._files import TEMPORARY, read_bytes, read_own
from supervisor.values import DiskFull, InfrastructureError, StateCorrupt, TooManyFiles
from tests.support.processes import line, python
from tests.support.settings import BRIEF


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a file with old content, alone in a directory."""
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "state.json").write_bytes(b"old")
    return str(directory / "state.json")


def assert_untouched(path: str) -> None:
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert Path(path).read_bytes() == b"old"


@BRIEF
@given(data=st.binary(max_size=1000), durable=st.booleans())
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, durable: bool
) -> None:
    """The file has just the new content, and no other file is left in the directory."""
    path = tmp_path_factory.mktemp("whole") / "file"
    for content in (b"old", data):
        write_whole(str(path), content, durable=durable)
    assert read_bytes(str(path)) == path.read_bytes() == data
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o755])
@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_the_mode_is_what_was_asked_for(path: str, mode: int, mask: int) -> None:
    """Permissions are exact, whatever the umask and whatever the old file had."""
    old = os.umask(mask)
    try:
        write_whole(path, b"new", mode=mode)
    finally:
        os.umask(old)
    assert os.stat(path).st_mode & 0o7777 == mode


def test_a_file_is_private_unless_asked_otherwise(path: str) -> None:
    """Records hold environments."""
    os.chmod(path, 0o644)
    write_whole(path, b"new")
    assert os.stat(path).st_mode & 0o7777 == 0o600


def test_a_name_of_full_length(tmp_path: Path) -> None:
    """The temporary file's name isn't longer than the file's."""
    path = tmp_path / ("n" * 255)
    write_whole(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_a_name_without_a_directory(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is in the working directory."""
    monkeypatch.chdir(os.path.dirname(path))
    write_whole("state.json", b"new", durable=True)
    assert Path(path).read_bytes() == b"new"
    assert os.listdir() == ["state.json"]


def test_the_old_file_lives_on_where_it_is_open(path: str) -> None:
    """A reader of the old file goes on reading the old file."""
    with open(path, "rb") as old:
        write_whole(path, b"new content")
        assert old.read() == b"old"
    assert Path(path).read_bytes() == b"new content"


def test_a_link_is_replaced_not_followed(path: str, tmp_path: Path) -> None:
    """Nothing is written through a symbolic link."""
    target = tmp_path / "target"
    target.write_bytes(b"target")
    os.unlink(path)
    os.symlink(target, path)
    write_whole(path, b"new")
    assert target.read_bytes() == b"target"
    assert not os.path.islink(path)


def test_a_missing_directory(tmp_path: Path) -> None:
    """The directory isn't made: a deleted container's doesn't come back."""
    with pytest.raises(FileNotFoundError):
        write_whole(str(tmp_path / "gone" / "file"), b"new")
    assert os.listdir(tmp_path) == []


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    """A directory in the file's place can't be replaced, and no temporary file is left."""
    (tmp_path / "file" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == ["file"]


# ---- failures --------------------------------------------------------------------

STEPS = ["open", "write", "fchmod", "fsync", "close", "rename"]
ERRORS = [
    (errno.ENOSPC, DiskFull),
    (errno.EDQUOT, DiskFull),
    (errno.EMFILE, TooManyFiles),
    (errno.ENFILE, TooManyFiles),
    (errno.EIO, OSError),
]


def failing(step: str, error: BaseException) -> Callable[..., Any]:
    """Return a stand-in for a function of `os` that does the work and then fails."""
    real = getattr(os, step)

    def fail(*args: Any) -> None:
        if step == "close":
            real(*args)
        raise error

    return fail


@pytest.mark.parametrize(("number", "kind"), ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_undoes_itself(
    path: str,
    step: str,
    number: int,
    kind: type[OSError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After any failure the old file stands, without a temporary file or an open descriptor."""
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing(step, OSError(number, os.strerror(number))))
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            write_whole(path, b"new", mode=0o644, durable=True)
    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert isinstance(caught.value, InfrastructureError) == (kind is not OSError)
    assert_untouched(path)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupt_at_any_step_undoes_itself(
    path: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C is no OSError, and leaves nothing either."""
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, failing(step, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new", mode=0o644, durable=True)
    assert_untouched(path)
    assert os.listdir("/proc/self/fd") == before


def test_short_writes_are_continued(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that takes one byte at a time gets them all."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1]))
    write_whole(path, b"new content")
    assert Path(path).read_bytes() == b"new content"


@pytest.mark.parametrize("durable", [False, True])
def test_only_durable_files_are_synced(
    path: str, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before the rename, the directory after the rename; or nothing is
    synced."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(fd: int) -> None:
        calls.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        fsync(fd)

    def note_rename(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    write_whole(path, b"new", durable=durable)
    assert calls == (["file", "rename", "directory"] if durable else ["rename"])


@pytest.fixture(params=["size=64k", "size=1m,nr_inodes=2"], ids=["no blocks", "no inodes"])
def full_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the path of a file with old content on a file system with no room for another."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(mount)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False).returncode == 0
    if not mounted:
        pytest.skip("mounting a tmpfs needs root")
    try:
        (mount / "state.json").write_bytes(b"old")
        yield str(mount / "state.json")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk(full_disk: str) -> None:
    """A real file system without room: DiskFull, the old file stands, nothing is left."""
    for durable in (False, True):
        with pytest.raises(DiskFull) as caught:
            write_whole(full_disk, b"n" * (128 << 10), durable=durable)
        assert caught.value.errno == errno.ENOSPC
        assert_untouched(full_disk)


def test_a_disk_that_has_room_again(full_disk: str) -> None:
    """After DiskFull the same call works as soon as there is room: nothing was used up."""
    with pytest.raises(DiskFull):
        write_whole(full_disk, b"n" * (128 << 10))
    mount = os.path.dirname(full_disk)
    command = ["mount", "-o", "remount,size=1m,nr_inodes=10", mount]
    subprocess.run(command, check=True)
    write_whole(full_disk, b"n" * (128 << 10))
    assert os.stat(full_disk).st_size == 128 << 10


WRITE = """
import sys
from supervisor.system import write_whole
contents = [bytes([65 + n]) * (n * 5000) for n in range(1, 20)]
print("up", flush=True)
while True:
    for content in contents:
        write_whole(sys.argv[1], content)
"""


def test_readers_and_the_writers_death(path: str) -> None:
    """A reader sees a whole content during writes, and so after the writer's SIGKILL."""
    contents = {bytes([65 + n]) * (n * 5000) for n in range(1, 20)} | {b"old"}
    with python(WRITE, path) as process:
        assert line(process.stdout) == "up"
        assert all(read_bytes(path) in contents for _ in range(300))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_bytes(path) in contents
    left = [name for name in os.listdir(os.path.dirname(path)) if name != "state.json"]
    assert len(left) <= 1
    assert all(name.startswith(TEMPORARY) for name in left)


def test_a_writer_within_a_write(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that begins and ends within another write leaves the other's temporary file alone."""
    rename = os.rename
    inner = [b"inner"]

    def rename_later(source: str, target: str) -> None:
        if inner:
            write_whole(path, inner.pop())
            assert Path(path).read_bytes() == b"inner"
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_later)
    write_whole(path, b"outer")
    assert Path(path).read_bytes() == b"outer"
    assert os.listdir(os.path.dirname(path)) == ["state.json"]


def test_two_writers(path: str) -> None:
    """Writers at the same time don't hinder each other: the last rename wins, whole."""
    contents = {bytes([65 + n]) * (n * 5000) for n in range(1, 20)} | {b"old"}
    with python(WRITE, path) as one, python(WRITE, path) as two:
        assert line(one.stdout) == line(two.stdout) == "up"
        assert all(read_bytes(path) in contents for _ in range(200))
        assert one.poll() is None
        assert two.poll() is None


# ---- reading ---------------------------------------------------------------------


def test_reading_runs_out_of_descriptors(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can't be opened for lack of descriptors is neither missing nor corrupt."""
    monkeypatch.setattr(os, "open", failing("open", OSError(errno.EMFILE, "Too many open files")))
    with pytest.raises(TooManyFiles):
        read_bytes(path)


@pytest.mark.parametrize("bound", [9, 10, 30])
def test_a_file_that_grows_while_it_is_read(
    path: str, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """A file that grows during the reading is read only up to the bound, however fast the writer
    is."""
    write_whole(path, b"1234567890")
    real = os.read
    asked: list[int] = []

    def read_more(fd: int, count: int) -> bytes:
        asked.append(count)
        with open(path, "ab") as file:
            file.write(b"1234567890")
        return real(fd, count)

    monkeypatch.setattr(os, "read", read_more)
    with pytest.raises(StateCorrupt, match=f"longer than {bound} bytes"):
        read_own(path, max_bytes=bound)
    assert sum(asked) <= bound + 11


def test_reading_leaves_no_descriptor(path: str) -> None:
    """Neither reading nor a refusal leaves a descriptor open."""
    before = os.listdir("/proc/self/fd")
    read_bytes(path)
    with pytest.raises(StateCorrupt):
        read_bytes(os.path.dirname(path))
    assert os.listdir("/proc/self/fd") == before
