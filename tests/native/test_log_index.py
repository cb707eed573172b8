"""The index of a log: the offset in the whole log at which each file begins."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.native.logs import LEAST_BYTES, Log, write_all
from tests.native.rig import SLEEP, Rig, runtime, unread
from tests.support.leaks import wait_for

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def log(rig: Rig) -> Log:
    """Return a log of three small files."""
    return Log(rig, max_bytes=LEAST_BYTES, files=3)


@pytest.fixture
def fd(rig: Rig, log: Log) -> int:
    """Launch a process whose log has an index; give the descriptor of the process's output."""
    begin(rig, log)
    return log.writer()


def begin(rig: Rig, log: Log) -> None:
    """Launch a process that writes nothing."""
    rig.launch(runtime(*SLEEP), *log.options(), "--log-index", str(rig / "index"))
    rig.running()


def index(rig: Rig) -> tuple[str, dict[str, int]]:
    """Return the log's name, and where files begin, by the time of their first record."""
    text = (rig / "index").read_text()
    first, *lines = (text[at : at + 64] for at in range(0, len(text), 64))
    assert all(line[-1] == "\n" for line in (first, *lines))
    word, name, _ = first.split()
    assert word == "log1"
    return name, {stamp: int(start) for start, stamp in map(str.split, filter(str.strip, lines))}


def put(fd: int, log: Log, lines: int = 1) -> None:
    """Write lines, and wait until the last one is in the log."""
    before = log.path.stat() if log.path.exists() else None
    write_all(fd, LINE * lines)

    def written() -> bool:
        with contextlib.suppress(FileNotFoundError):
            now = log.path.stat()
            return now.st_size > 0 and (before is None or now.st_mtime_ns != before.st_mtime_ns)
        return False

    wait_for(written, "the lines")


def starts(rig: Rig, log: Log) -> list[int]:
    """Return where each file that is there begins, from the oldest to the newest."""
    _, known = index(rig)
    return [known[path.read_text()[:30]] for path in log.files if path.stat().st_size]


def test_across_rotations(rig: Rig, log: Log, fd: int) -> None:
    """Each file begins where the previous one ends; files that are long gone are forgotten."""
    for _ in range(300):
        write_all(fd, LINE * 20)
    wait_for(lambda: unread(fd) == 0 and rig.waiting(), "the shim")
    sizes = [path.stat().st_size for path in log.files]
    first, second, third = starts(rig, log)
    assert (second - first, third - second) == (sizes[0], sizes[1])
    assert third + sizes[2] > 600_000
    assert len(index(rig)[1]) == 3 + 12
    heads = [path.read_text()[:30] for path in log.files]
    assert len(set(heads)) == 3 and heads == sorted(heads)


@pytest.mark.parametrize("how", ["moved", "removed", "emptied"])
def test_changed_by_somebody_else(rig: Rig, log: Log, fd: int, how: str) -> None:
    """The next record is the first one of a file at our name; the index has one byte's gap before
    it."""
    put(fd, log)
    size = log.path.stat().st_size
    if how == "moved":
        log.path.rename(rig / "elsewhere")
    elif how == "removed":
        log.path.unlink()
    else:
        os.truncate(log.path, 0)
    put(fd, log)
    assert log.path.stat().st_size == size
    assert starts(rig, log) == [size + 1]
    put(fd, log)
    assert log.path.stat().st_size == 2 * size
    assert starts(rig, log) == [size + 1]


def test_cut_by_somebody_else(rig: Rig, log: Log, fd: int) -> None:
    """A file that was cut is left alone: the next record would otherwise join half a record."""
    put(fd, log)
    size = log.path.stat().st_size
    os.truncate(log.path, 60)
    put(fd, log)
    assert [path.stat().st_size for path in log.files] == [60, size]
    assert starts(rig, log) == [0, size + 1]


def test_in_the_place_of_what_is_there(rig: Rig, log: Log) -> None:
    """A log that is already there belongs to an earlier process, and so does the index."""
    log.path.write_text("2026-01-31T12:34:56.123456789Z stdout F before\n")
    (rig / "index").write_text("old")
    old = (rig / "index").stat().st_ino
    with (rig / "index").open() as held:
        begin(rig, log)
        assert (rig / "index").stat().st_ino != old and held.read() == "old"
    assert Path(f"{log.path}.1").read_text().endswith("before\n")
    assert log.path.read_text() == "" and index(rig)[1] == {}


def test_a_later_process_has_its_name(rig: Rig, log: Log, fd: int) -> None:
    """A shim that lives on neither writes into a later process's log nor moves the files."""
    put(fd, log)
    log.path.rename(f"{log.path}.1")
    (rig / "index").unlink()
    log.path.write_text("another one's\n")
    (rig / "index").write_text("another one's")
    write_all(fd, LINE * 2000)
    wait_for(lambda: unread(fd) == 0 and rig.waiting(), "the shim")
    rig.control("2 9 0\n")
    rig.control("3 0 0\n")
    assert rig.end() == (137, 9)
    assert log.path.read_text() == "another one's\n"
    assert [path.name for path in log.files] == ["output.log.1", "output.log"]


def test_without_room_for_an_index(rig: Rig, log: Log) -> None:
    """Records are written all the same."""
    log.rig.launch(runtime(*SLEEP), *log.options(), "--log-index", str(rig / "none" / "index"))
    rig.running()
    fd = log.writer()
    put(fd, log)
    assert log.text() == LINE
    assert "cannot write" in (rig / "shim-log.json").read_text()


def test_without_a_log(rig: Rig) -> None:
    """An index without a log is refused."""
    rig.launch(runtime(*SLEEP), "--log-index", str(rig / "index"))
    assert rig.refused("options")["error"] == "an index needs --log"
