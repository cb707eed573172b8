"""The bounds of a log: rotation, half a record, a full disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.logs import (
    CONTENT_MAX,
    LEAST_BYTES,
    MUCH,
    RECORD,
    Log,
    drained,
    finish_writers,
    joined,
    launch_traced,
    lines_of,
    parse,
    sleeping,
    write_all,
    writing,
)
from tests.native.rig import Rig, root_only, runtime, shell
from tests.native.tracing import needs_strace, release
from tests.support.leaks import wait_for

pytestmark = pytest.mark.usefixtures("directory")


SEED = 20261124


@pytest.mark.parametrize("files", [1, 2, 5])
@pytest.mark.parametrize("most_bytes", [200, 20_000])
def test_rotation(rig: Rig, files: int, most_bytes: int) -> None:
    """Neither bound is ever exceeded; the log keeps the last of the output, as much as fits."""
    max_bytes = 40_000
    log = Log(rig, max_bytes=max_bytes, files=files)
    sleeping(rig, log)
    fd = log.writer()
    written = b""
    for line in lines_of(random.Random(SEED), most_bytes):
        write_all(fd, line)
        written += line
        if len(written) % 10 == 0:
            within_bounds(log, max_bytes, files)
        if len(written) > (files + 2) * max_bytes:
            break
    finish_writers(rig, fd)
    within_bounds(log, max_bytes, files)
    assert [path.name for path in log.files] == [
        *(f"output.log.{number}" for number in range(files - 1, 0, -1)),
        "output.log",
    ]
    kept = joined(log.records())
    assert kept
    assert written.endswith(kept)
    for older, newer in itertools.pairwise(log.files):
        first = newer.read_bytes().partition(b"\n")[0] + b"\n"
        assert older.stat().st_size + len(first) > max_bytes


def within_bounds(log: Log, max_bytes: int, files: int) -> None:
    sizes = []
    for path in log.files:
        with contextlib.suppress(FileNotFoundError):  # the shim rotates the file just now
            sizes.append(path.stat().st_size)
    assert all(size <= max_bytes for size in sizes)
    assert len({path.name for path in log.files}) <= files


def test_a_file_of_one_record(rig: Rig) -> None:
    """With the smallest bound, every full record has a file of its own."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=3)
    data = b"".join(bytes([number]) * CONTENT_MAX for number in range(65, 75))
    rig.launch(runtime(*writing((1, data))), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert [len(parse(path.read_bytes())) for path in log.files] == [1, 1, 1]
    assert log.text() == data[-3 * CONTENT_MAX :]


def test_a_new_shim_appends(rig: Rig, tmp_path: Path) -> None:
    """A log that is there already is added to."""
    log = Log(rig, tmp_path / "log", max_bytes=MUCH, files=2)
    rig.launch(runtime(*shell("echo one")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    with contextlib.closing(Rig(rig.programs, tmp_path / "second")) as second:
        options = Log(second, log.path, max_bytes=MUCH, files=2).options()
        second.launch(runtime(*shell("echo two")), *options)
        second.made()
        assert second.end() == (0, 0)
    assert log.text() == b"one\ntwo\n"


@pytest.mark.parametrize("size", range(0, len(RECORD), 7))
@pytest.mark.parametrize("whole", [0, 2, 500])
def test_half_a_record_is_cut_off(rig: Rig, whole: int, size: int) -> None:
    """The part of a record that a killed shim left isn't glued to the next record."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * whole + RECORD[:size])
    rig.launch(runtime(*shell("echo after")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert log.text() == b"before\n" * whole + b"after\n"


def test_a_log_that_is_too_large_already(rig: Rig) -> None:
    """A file beyond the bound, from a time with another one, is rotated at the first record."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=2)
    log.path.write_bytes(RECORD * 1000)
    rig.launch(runtime(*shell("echo after")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert [len(parse(path.read_bytes())) for path in log.files] == [1000, 1]


def test_a_name_that_is_taken(rig: Rig) -> None:
    """Where the rotation fails, the file stays within the bound, and the writer goes on."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=2)
    obstacle = Path(f"{log.path}.1")
    obstacle.mkdir()
    sleeping(rig, log)
    fd = log.writer()
    line = b"x" * 99 + b"\n"
    write_all(fd, line * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert 0 < log.path.stat().st_size <= LEAST_BYTES
    obstacle.rmdir()
    write_all(fd, b"after " * 50 + b"\n")
    wait_for(lambda: log.text().endswith(b"after \n"), "a log that goes on")
    assert [path.name for path in log.files] == ["output.log.1", "output.log"]
    finish_writers(rig, fd)
    assert [entry["msg"].split(":")[0] for entry in rig.log()] == [
        f"cannot rotate the log {log.path}"
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system: 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=20,mode=755", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk; return the file that does."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


@root_only
def test_a_full_disk(rig: Rig, disk: Path) -> None:
    """A full disk blocks no writer, leaves no half record, rotates nothing away, and heals."""
    log = Log(rig, disk / "log", max_bytes=70_000, files=3)
    Path(f"{log.path}.1").write_bytes(RECORD * 1000)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"first\n")
    wait_for(lambda: log.text().endswith(b"first\n"), "a line")
    filler = fill(disk)
    for line in itertools.islice(lines_of(random.Random(SEED), 500), 8000):
        write_all(fd, line)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert log.text().startswith(b"before\n" * 1000 + b"first\n")
    assert [path.name for path in log.files] == ["log.1", "log"]
    parse(log.path.read_bytes())
    filler.unlink()
    write_all(fd, b"\nafter\n")
    wait_for(lambda: log.text().endswith(b"after\n"), "a log that goes on")
    finish_writers(rig, fd)
    assert log.records()
    said = {entry["msg"] for entry in rig.log()}
    assert said == {f"cannot write the log {log.path}: No space left on device"}


@root_only
def test_no_inode_is_left(rig: Rig, disk: Path) -> None:
    """A rotation that can't make the new file doesn't push the old ones out at each record."""
    log = Log(rig, disk / "log", max_bytes=LEAST_BYTES, files=3)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"x" * 10_000 + b"\n")
    wait_for(lambda: len(log.text()) == 10_001, "a line")
    fillers = []
    with contextlib.suppress(OSError):
        for number in itertools.count():
            fillers.append(disk / str(number))
            fillers[-1].touch()
    write_all(fd, (b"y" * 9_999 + b"\n") * 10)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert log.text() == b"x" * 10_000 + b"\n"
    fillers[0].unlink()
    write_all(fd, b"after\n")
    wait_for(lambda: log.text().endswith(b"after\n"), "a log that goes on")
    assert log.text() == b"x" * 10_000 + b"\nafter\n"
    finish_writers(rig, fd)
    [entry] = rig.log()
    assert entry["msg"] == f"cannot open the log {log.path}: No space left on device"


@release
def test_what_is_no_log_of_ours_stays(rig: Rig) -> None:
    """A file that ends with more than any record could hold isn't cut."""
    old = b"x" * (LEAST_BYTES + 1)
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(old)
    rig.launch(runtime(*shell("exit 3")), *log.options())
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.read_bytes() == old


@release
def test_a_whole_log_is_not_touched(rig: Rig) -> None:
    """A log without half a record stays unchanged until there is something to add."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * 3)
    os.utime(log.path, ns=(1, 1))
    rig.launch(runtime(*shell("exit 3")), *log.options())
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.stat().st_mtime_ns == 1


@release
@needs_strace
def test_a_log_that_shrinks_while_it_is_looked_at(rig: Rig) -> None:
    """If a read returns less than the file's size, the shim can't know where a record ends: nothing
    is cut."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * 3)
    launch_traced(rig, "exit 3", log, "-e", "inject=pread64:retval=1:when=1")
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.read_bytes() == RECORD * 3
