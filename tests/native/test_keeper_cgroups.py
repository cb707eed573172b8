"""How the keeper empties cgroups."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.cgroups import Hierarchies
from tests.native.keeper import KeeperRig, impatient
from tests.native.rig import SLEEP, root_only


@pytest.fixture
def cgroup() -> Iterator[list[Path]]:
    """The directories of a cgroup of ours in every hierarchy, with a nested one in each."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    name = f"/ts-test-{os.getpid()}-{secrets.token_hex(4)}"
    directories = [Path(path) for path in hierarchies.directories(name)]
    try:
        for path in directories:
            (path / "nested").mkdir(parents=True)
            for group in (path, path / "nested"):
                for key in ("cpuset.cpus", "cpuset.mems"):
                    if (group / key).exists():
                        (group / key).write_text((group.parent / key).read_text())
        yield directories
    finally:
        for path in directories:
            for group in (path / "nested", path):
                if group.exists():
                    group.rmdir()


def enter(directories: list[Path], nested: bool) -> Callable[[], None]:
    """Return what puts the caller into a cgroup."""

    def do() -> None:
        for path in directories:
            (path / "nested" if nested else path).joinpath("cgroup.procs").write_text(
                str(os.getpid())
            )

    return do


@root_only
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
@pytest.mark.parametrize("nested", [False, True], ids=["outer", "nested"])
def test_cgroups(keeper: KeeperRig, cgroup: list[Path], nested: bool, frozen: bool) -> None:
    """Processes in a cgroup are killed, paused or not, and the cgroup's directories are removed."""
    victim = subprocess.Popen(SLEEP, preexec_fn=enter(cgroup, nested))  # noqa: PLW1509 -- it only writes
    freezers = [path / name for path in cgroup for name in ("freezer.state", "cgroup.freeze")]
    if frozen:
        for path in freezers:
            if path.exists():
                path.write_text("FROZEN" if path.name == "freezer.state" else "1")
    try:
        keeper.container("box", *(["cgroup", str(path)] for path in cgroup))
        keeper.launch()
        keeper.leash.let_go()
        assert victim.wait(10) == -signal.SIGKILL
        assert keeper.wait_gone() == 0
        assert not any(path.exists() for path in cgroup)
    finally:
        victim.kill()
        for path in freezers:
            if path.exists():
                path.write_text("THAWED" if path.name == "freezer.state" else "0")
        victim.wait()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that isn't ours to kill."""
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def listing(path: Path, text: str) -> None:
    """Make a directory that looks like a cgroup with these processes."""
    path.mkdir()
    (path / "cgroup.procs").write_text(text)


def test_listed_processes_are_killed(
    keeper: KeeperRig, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """Every whole line of the list counts; 0 is a process of another pid namespace."""
    listing(tmp_path / "group", f"0\n0\n{stranger.pid}\n")
    keeper.container("box", ["cgroup", str(tmp_path / "group")])
    keeper.launch()
    keeper.leash.let_go()
    assert stranger.wait(10) == -signal.SIGKILL


@impatient
def test_a_pid_that_was_cut_is_a_strangers(
    keeper: KeeperRig, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """A list longer than the buffer ends in part of a number: that process isn't killed."""
    read = 64 * 1024 - 1
    room = read - len(str(stranger.pid))
    text = ("0\n" * read)[-room:] if room % 2 == 0 else "00\n" + ("0\n" * read)[: room - 3]
    listing(tmp_path / "group", f"{text}{stranger.pid}00\n")
    assert len(text) == room
    keeper.container("box", ["cgroup", str(tmp_path / "group")])
    keeper.clean()
    assert stranger.poll() is None
