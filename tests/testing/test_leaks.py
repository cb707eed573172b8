"""leak_check names whatever a block leaves behind, after some time for processes to end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from supervisor import InvalidValue
from supervisor.cgroups import Hierarchies
from supervisor.directories._temporary import PLACE
from supervisor.testing import LeakError, leak_check
from tests.support.leaks import children, command, wait_for
from tests.support.runtimes import needs_root

PARENT = f"/ts-leak-{os.getpid()}"


@contextlib.contextmanager
def process(_: Path) -> Iterator[str]:
    """Leave a process."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    wait_for(lambda: command(pid) == "sleep 600", "it has become sleep")
    yield f"process {pid} (sleep 600)"
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@contextlib.contextmanager
def zombie(_: Path) -> Iterator[str]:
    """Leave a zombie."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield f"process {pid} (zombie true)"
    os.waitpid(pid, 0)


@contextlib.contextmanager
def descriptor(_: Path) -> Iterator[str]:
    """Leave a descriptor open."""
    fd = os.open("/dev/null", os.O_RDONLY)
    yield f"descriptor {fd} (/dev/null)"
    os.close(fd)


@contextlib.contextmanager
def container(root: Path) -> Iterator[str]:
    """Leave a directory of a container."""
    (root / "web").mkdir()
    yield f"directory {root}/web"
    (root / "web").rmdir()


@contextlib.contextmanager
def known_to_runtime(root: Path) -> Iterator[str]:
    """Leave a container that only the runtime knows."""
    (root / ".runtime/web").mkdir(parents=True)
    yield f"directory {root}/.runtime/web"
    (root / ".runtime/web").rmdir()


@contextlib.contextmanager
def cgroup(_: Path) -> Iterator[str]:
    """Leave a cgroup."""
    path = Path(Hierarchies.discover().directories(f"{PARENT}/web")[0])
    path.mkdir(parents=True)
    yield f"cgroup {path}"
    path.rmdir()
    path.parent.rmdir()


@contextlib.contextmanager
def mount(root: Path) -> Iterator[str]:
    """Leave a mount."""
    (root / "on").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "on"], check=True)
    yield f"mount {root}/on"
    subprocess.run(["umount", root / "on"], check=True)


LEFT = [
    process,
    zombie,
    descriptor,
    container,
    known_to_runtime,
    pytest.param(cgroup, marks=needs_root),
    pytest.param(mount, marks=needs_root),
]
Leave = Callable[[Path], contextlib.AbstractContextManager[str]]


@pytest.mark.parametrize("leave", LEFT)
async def test_names_what_is_left(leave: Leave, root: Path) -> None:
    """The error names what a block leaves, in plain and in Trio code."""
    root.mkdir()
    with contextlib.ExitStack() as later:
        checks = (leak_check(cgroup_parent=PARENT, directories=[root], seconds=0) for _ in "ab")
        plain, waiting = checks
        with pytest.raises(LeakError) as caught, plain:
            what = later.enter_context(leave(root))
        later.close()
        assert what in [str(leak) for leak in caught.value.leaks]
        with pytest.raises(LeakError) as caught:
            async with waiting:
                what = later.enter_context(leave(root))
        later.close()
        assert what in str(caught.value)


def test_ephemeral_roots(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    """A temporary root that is left is found, and others' files in /tmp aren't looked at."""
    monkeypatch.setenv(PLACE, str(workdir))
    with pytest.raises(LeakError) as caught, leak_check(seconds=0):
        (workdir / "trio-supervisor-0123").mkdir()
        (workdir / "something").mkdir()
    assert [str(leak) for leak in caught.value.leaks] == [
        f"directory {os.path.realpath(workdir)}/trio-supervisor-0123"
    ]


async def test_waits_without_blocking(root: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Processes that are about to end get time, and other tasks run meanwhile."""
    root.mkdir()

    async def go_later() -> None:
        await trio.sleep(5)
        (root / "web").rmdir()

    async with trio.open_nursery() as nursery, leak_check(directories=[root], temporary=False):
        (root / "web").mkdir()
        nursery.start_soon(go_later)
    assert trio.current_time() >= 5


async def test_time_runs_out(root: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The wait has an end."""
    root.mkdir()
    with pytest.raises(LeakError, match="left behind:\n  directory"):
        async with leak_check(directories=[root], temporary=False, seconds=7):
            (root / "web").mkdir()
    assert 7 <= trio.current_time() < 8


async def test_cancelled_wait(root: Path) -> None:
    """A cancelled wait ends at once, and raises Cancelled."""
    root.mkdir()
    with trio.fail_after(20), trio.CancelScope() as scope:
        async with leak_check(directories=[root], temporary=False, seconds=600):
            (root / "web").mkdir()
            scope.cancel()
    assert scope.cancelled_caught


def test_block_that_raises(root: Path) -> None:
    """The block's own error comes out, with a note of what was left."""
    root.mkdir()
    with pytest.raises(ZeroDivisionError) as caught:
        with leak_check(directories=[root], temporary=False, seconds=0):
            (root / "web").mkdir()
            raise ZeroDivisionError
    assert caught.value.__notes__ == [f"left behind:\n  directory {root}/web"]


def test_what_was_there_is_no_leak(root: Path) -> None:
    """A leak check doesn't name what was there before, nor what came and went."""
    root.mkdir()
    (root / "old").mkdir()
    fd = os.open("/dev/null", os.O_RDONLY)
    with leak_check(directories=[root], temporary=False, seconds=0) as check:
        (root / "web").mkdir()
        assert [leak.kind for leak in check.left()] == ["directory"]
        (root / "web").rmdir()
        subprocess.run(["true"], check=True)
    os.close(fd)


def test_subreaper() -> None:
    """As the subreaper we find what a program of ours has left, and afterwards we are no
    subreaper."""
    script = "import os; os.fork() or os.execv('/bin/sleep', ['sleep', '60'])"
    before = children(os.getpid())
    with pytest.raises(LeakError, match="sleep 60"), leak_check(subreaper=True, seconds=0.01):
        subprocess.run([sys.executable, "-c", script], check=True)
        wait_for(lambda: "sleep 60" in map(command, children(os.getpid())), "it has become sleep")
    [left] = set(children(os.getpid())) - set(before)
    os.kill(left, 9)
    os.waitpid(left, 0)


@pytest.mark.parametrize("told", [{"seconds": -1}, {"cgroup_parent": "ts"}])
def test_bad_arguments(told: dict[str, object]) -> None:
    """Bad arguments are refused before anything is looked at."""
    with pytest.raises(InvalidValue, match=next(iter(told))):
        leak_check(**told)  # type: ignore[arg-type]


def test_not_begun() -> None:
    """A check that hasn't begun has nothing to compare with, and raises."""
    with pytest.raises(RuntimeError, match="hasn't begun"):
        leak_check().left()
