"""Groups that no path can name are thawed, killed and removed like any others."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor.cgroups import Hierarchies, finish
from tests.support.leaks import wait_for

DEEP = 60
NAME = b"\xff" + b"a" * 249  # as long as a kernfs name may be, about; and no text


@pytest.fixture
def hierarchies() -> Hierarchies:
    """Those of this machine, if we may make cgroups in them."""
    found = Hierarchies.discover()
    if not found.usable:
        pytest.skip("cgroups can't be made here")
    return found


@pytest.fixture
def cgroup(hierarchies: Hierarchies) -> Iterator[str]:
    """A cgroup of the test's own; the test removes the group."""
    name = f"/ts-test-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    assert hierarchies.remains(name) == []


def place(hierarchies: Hierarchies, file: str) -> str:
    """Return where a hierarchy is mounted whose groups have this file."""
    for mount in hierarchies.mounts:
        probe = Path(mount, f"ts-probe-{os.getpid()}")
        probe.mkdir()
        there = (probe / file).exists()
        probe.rmdir()
        if there:
            return mount
    pytest.skip(f"no hierarchy here has {file}")


def dig(directory: str, levels: int) -> int:
    """Make groups inside each other; return a descriptor of the deepest."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(NAME, dir_fd=here)
        below = os.open(NAME, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    return here


def write(group: int, name: str, text: bytes) -> None:
    fd = os.open(name, os.O_WRONLY, dir_fd=group)
    os.write(fd, text)
    os.close(fd)


@pytest.mark.parametrize("file", ["pids.max", "freezer.state", "cgroup.freeze"])
def test_deep_and_frozen(hierarchies: Hierarchies, cgroup: str, file: str) -> None:
    """60 nested groups with names of 250 bytes, each frozen, are thawed, killed and removed: once
    SIGKILL didn't reach the last, and no path could name it for the removal."""
    mount = place(hierarchies, file)
    os.mkdir(mount + cgroup)
    deepest = dig(mount + cgroup, DEEP)
    victim = subprocess.Popen(["/bin/sleep", "600"], stdin=subprocess.DEVNULL)
    try:
        write(deepest, "cgroup.procs", str(victim.pid).encode())
        if file != "pids.max":
            write(deepest, file, b"FROZEN" if file == "freezer.state" else b"1")
        assert hierarchies.members(cgroup) == {victim.pid}
        trio.run(hierarchies.remove, cgroup)
        assert victim.wait(10) == -signal.SIGKILL
    finally:
        victim.kill()
        os.close(deepest)
        victim.wait()


def test_what_is_killed_late_is_nobody_elses(hierarchies: Hierarchies, cgroup: str) -> None:
    """A kill that has begun doesn't touch the cgroup of a later container of the same name."""
    mount = place(hierarchies, "pids.max")
    os.mkdir(mount + cgroup)
    steps = hierarchies.kill_steps(cgroup)
    next(steps)
    os.rmdir(mount + cgroup)
    os.mkdir(mount + cgroup)
    stranger = subprocess.Popen(["/bin/sleep", "600"], stdin=subprocess.DEVNULL)
    try:
        Path(mount + cgroup, "cgroup.procs").write_text(str(stranger.pid))
        finish(steps)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    wait_for(lambda: hierarchies.members(cgroup) == set(), "its end")
    trio.run(hierarchies.remove, cgroup)
