"""Logs that are refused, and what stands in the place of one and is not ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.logs import LEAST_BYTES, MUCH, Log, drained, finish_writers, sleeping, write_all
from tests.native.rig import SLEEP, Rig, runtime
from tests.support.leaks import wait_for

pytestmark = pytest.mark.usefixtures("directory")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "log",
        "100000",
        "100000:2",
        "100000:2:",
        "100000::log",
        ":2:log",
        "100000:2log",
        "100000 2 log",
        "100000:0:log",
        "100000:-1:log",
        "100000:1001:log",
        "100000:99999999999:log",
        "-100000:2:log",
        f"{LEAST_BYTES - 1}:2:log",
        "1e6:2:log",
        "9999999999999999999999:2:log",
    ],
)
def test_bad_bounds(rig: Rig, spec: str) -> None:
    """A --log that can't be obeyed is refused, and nothing is run."""
    rig.launch(runtime(*SLEEP), "--log", spec)
    assert rig.refused("options")["error"].startswith("--log takes MAX_BYTES:FILES:PATH")
    assert not (rig / "pid").exists()


def test_a_log_without_bounds(rig: Rig) -> None:
    """A stream can't be logged without --log."""
    rig.fifo("out")
    rig.launch(runtime(*SLEEP), "--stdout", f"log:{rig / 'out'}")
    assert rig.refused("options")["error"] == "a log needs --log"


def test_input_is_no_log(rig: Rig) -> None:
    """Standard input can't be logged."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options("stdin"))
    assert rig.refused("options")["error"].startswith("bad stdio log:")


def test_a_log_that_cannot_be_opened(rig: Rig) -> None:
    """Where there can be no log there is no process."""
    log = Log(rig, rig / "none/log", max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options())
    assert rig.refused("files")["errno"] == errno.ENOENT


def test_a_log_that_is_no_fifo(rig: Rig) -> None:
    """A stream is logged through a fifo, and through nothing else."""
    log = Log(rig, max_bytes=MUCH, files=1)
    options = log.options()
    (rig / "stdout").unlink()
    (rig / "stdout").touch()
    rig.launch(runtime(*SLEEP), *options)
    assert rig.refused("stdio")["error"].endswith("is not a fifo")


def precious(rig: Rig) -> Path:
    """Return a file that isn't a log, and of which nothing may change."""
    path = rig / "precious"
    path.write_bytes(b"precious\n")
    return path


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _fifo(path: Path, target: Path) -> None:
    os.mkfifo(path, 0o600)


def _others_may_write(path: Path, target: Path) -> None:
    path.write_bytes(b"mine\n")
    path.chmod(0o666)


def _foreign(path: Path, target: Path) -> None:
    path.write_bytes(b"mine\n")
    os.chown(path, 65534, 65534)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


strange = pytest.mark.parametrize(
    "spoil", [_link, _fifo, _others_may_write, pytest.param(_foreign, marks=as_root)]
)


@strange
def test_a_log_that_is_not_ours(rig: Rig, spoil: Callable[[Path, Path], None]) -> None:
    """A link there had root append to any file of the host what a container printed."""
    target = precious(rig)
    log = Log(rig, max_bytes=MUCH, files=2)
    spoil(log.path, target)
    before = log.path.lstat()
    rig.launch(runtime(*SLEEP), *log.options())
    assert "not a file of ours alone" in rig.refused("files")["error"]
    assert target.read_bytes() == b"precious\n"
    assert log.path.lstat() == before


@pytest.mark.parametrize(
    "kind", ["link", "writable", pytest.param("foreign", marks=as_root), "file", "none"]
)
def test_a_directory_that_is_not_ours(rig: Rig, kind: str) -> None:
    """A log directory that isn't ours alone is refused: others could put links in place of the
    files."""
    directory, elsewhere = rig / "logs", rig / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        directory.symlink_to(elsewhere)
    elif kind == "file":
        directory.write_bytes(b"")
    elif kind != "none":
        directory.mkdir()
    if kind == "writable":
        directory.chmod(0o777)
    if kind == "foreign":
        os.chown(directory, 65534, 65534)
    log = Log(rig, directory / "e.log", max_bytes=MUCH, files=2)
    rig.launch(runtime(*SLEEP), *log.options())
    said = "cannot look at" if kind == "none" else "isn't a directory of ours alone"
    assert said in rig.refused("files")["error"]
    assert list(elsewhere.iterdir()) == []


@strange
def test_a_rotation_stops_at_what_is_not_ours(
    rig: Rig, spoil: Callable[[Path, Path], None]
) -> None:
    """The obstacle is neither replaced nor renamed; the log keeps to the bound, and the writer goes
    on."""
    target = precious(rig)
    log = Log(rig, max_bytes=LEAST_BYTES, files=3)
    obstacle = Path(f"{log.path}.1")
    spoil(obstacle, target)
    before = obstacle.lstat()
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, (b"x" * 99 + b"\n") * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert 0 < log.path.stat().st_size <= LEAST_BYTES
    assert obstacle.lstat() == before
    assert not Path(f"{log.path}.2").exists()
    assert target.read_bytes() == b"precious\n"
    finish_writers(rig, fd)
    [entry] = rig.log()
    assert entry["msg"] == f"cannot rotate the log {log.path}: not a file of ours alone"


def test_a_link_that_comes_in_its_place(rig: Rig) -> None:
    """After a rotation the next file is made, and what stands there instead isn't written to."""
    target = precious(rig)
    log = Log(rig, max_bytes=LEAST_BYTES, files=1)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"line\n")
    wait_for(lambda: log.text() == b"line\n", "a record")
    log.path.unlink()
    log.path.symlink_to(target)
    write_all(fd, (b"x" * 99 + b"\n") * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert target.read_bytes() == b"precious\n"
    finish_writers(rig, fd)
