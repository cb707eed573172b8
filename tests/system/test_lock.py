"""Locks: the holder of a lock, and the end of the hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.system import Descriptor, Lock, _lock, close_in_children, held, start_time
from supervisor.system._descriptors import NO_FORK
from supervisor.values import TooManyFiles
from tests.support.processes import holder, line, python


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def take(path: str) -> Lock:
    lock = Lock.take(path)
    assert lock is not None
    return lock


def test_a_lock_is_taken_and_released(path: str) -> None:
    """Taking makes the file, private; releasing leaves the file, unlocked."""
    with take(path) as lock:
        assert held(path)
        assert os.stat(path).st_mode & 0o7777 == 0o600
        assert not os.get_inheritable(lock.fd)
    assert not held(path)
    assert os.path.exists(path)
    take(path).release()


def test_releasing_twice_is_harmless(path: str) -> None:
    """The second release doesn't close what got the number meanwhile."""
    lock = take(path)
    fd = lock.fd
    lock.release()
    other = os.open(os.devnull, os.O_RDONLY)
    try:
        assert other == fd
        lock.release()
        assert lock.fd == -1
        os.fstat(other)
    finally:
        os.close(other)


def test_the_same_process_can_not_take_it_twice(path: str) -> None:
    """Two supervisors in one process exclude each other, too."""
    with take(path):
        assert Lock.take(path) is None
        assert held(path)


def test_another_process_holds_it(path: str) -> None:
    """A lock that another process holds can't be taken; the process's death by SIGKILL frees the
    lock."""
    with holder(path) as process:
        assert Lock.take(path) is None
        assert held(path)
        process.kill()
        process.wait()
        assert not held(path)
        take(path).release()


TRY = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("yes")
except BlockingIOError:
    print("no")
"""


def test_it_excludes_other_processes(path: str) -> None:
    """A lock of ours is seen by a process without our code."""
    with take(path), python(TRY, path) as process:
        assert line(process.stdout) == "no"
    with python(TRY, path) as process:
        assert line(process.stdout) == "yes"


def test_a_child_that_inherits_it_holds_it_on(path: str) -> None:
    """A runtime call that inherits the lock holds the lock after the first holder's release."""
    lock = take(path)
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    with python(script, pass_fds=[lock.fd]) as process:
        assert line(process.stdout) == "up"
        lock.release()
        assert held(path)
        assert Lock.take(path) is None
        process.kill()
        process.wait()
    assert not held(path)


def test_a_child_that_is_not_given_it_does_not_hold_it(path: str) -> None:
    """Other children never get the descriptor."""
    lock = take(path)
    with python("import sys; print('up', flush=True); sys.stdin.read()") as process:
        assert line(process.stdout) == "up"
        lock.release()
        assert not held(path)


FORK = """
import os, sys, threading
from supervisor.system import Lock, close_in_children, held
path, go = sys.argv[1], int(sys.argv[2])
lock = Lock.take(path)
leash = close_in_children(os.open(os.devnull, os.O_RDONLY))
fds = lock.fd, leash.fd
pid = os.fork()
if pid == 0:
    closed = 0
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError:
            closed += 1
    thread = threading.Thread(target=lock.release, daemon=True)
    thread.start()
    thread.join(30)
    print(os.getpid(), closed, lock.fd, leash.fd, thread.is_alive(), flush=True)
    os.read(go, 1)
    os._exit(0)
assert (lock.fd, leash.fd) == fds
os.fstat(lock.fd), os.fstat(leash.fd)
assert held(path)
sys.stdin.readline()
lock.release()
print(held(path), flush=True)
leash.close()
os.waitpid(pid, 0)
print("end", flush=True)
"""


@contextlib.contextmanager
def forking(path: str) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run a process that takes a lock and forks a child that lives on.

    Yields: The process, the child's pid, and a descriptor; closing the descriptor ends the child.
    """
    go, going = os.pipe()
    with python(FORK, path, str(go), pass_fds=[go]) as process:
        os.close(go)
        pid, *seen = line(process.stdout).split()
        assert seen == ["2", "-1", "-1", "False"]
        yield process, int(pid), going


def test_a_forked_child_closes_it(path: str) -> None:
    """A forked child (multiprocessing) that doesn't exec holds neither locks nor leashes; the
    parent's stay as they are, whatever the child does with its own."""
    with forking(path) as (process, _, going):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert line(process.stdout) == "False"
        os.close(going)
        assert line(process.stdout) == "end"


def test_a_killed_parents_lock_ends_though_its_forked_child_lives(path: str) -> None:
    """A supervisor with a multiprocessing pool that is killed can be followed by another."""
    with forking(path) as (process, pid, going):
        assert held(path)
        process.kill()
        process.wait()
        assert start_time(pid) is not None
        assert not held(path)
        take(path).release()
        os.close(going)
        with contextlib.suppress(ChildProcessError):  # ours only if we are a subreaper
            os.waitpid(pid, 0)


def test_a_fork_waits_for_a_descriptor_half_made(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other thread can fork between a lock's opening and its registration: the child would hold
    the lock without a record of that."""
    free: list[bool] = []

    def look() -> None:
        free.append(NO_FORK.acquire(blocking=False))

    def register(lock: Lock, fd: int) -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        Descriptor.__init__(lock, fd)

    monkeypatch.setattr(Lock, "__init__", register)
    take(path).release()
    assert free == [False]


def test_a_replaced_file_is_taken_anew(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was replaced between opening and locking: the lock is on the new one."""
    flock = fcntl.flock
    replaced: list[int] = []

    def replace_first(fd: int, kind: int) -> None:
        if not replaced:
            replaced.append(os.fstat(fd).st_ino)
            os.rename(path, path + ".old")
            os.close(os.open(path, os.O_CREAT, 0o600))
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    with take(path) as lock:
        assert os.path.samestat(os.fstat(lock.fd), os.stat(path))
        assert os.fstat(lock.fd).st_ino != replaced[0]
        assert not held(path + ".old")
        assert held(path)


def test_a_replaced_file_that_is_locked_is_not_taken(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file's holder is respected."""
    flock = fcntl.flock
    others: list[int] = []

    def replace_first(fd: int, kind: int) -> None:
        if not others:
            os.rename(path, path + ".old")
            others.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            flock(others[0], fcntl.LOCK_EX)
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", replace_first)
    assert Lock.take(path) is None
    assert not held(path + ".old")
    os.close(others[0])


def test_a_file_that_is_gone_is_made_anew(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was removed between opening and locking is no lock."""
    flock = fcntl.flock
    removed: list[bool] = []

    def remove_first(fd: int, kind: int) -> None:
        if not removed:
            removed.append(True)
            os.unlink(path)
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with take(path) as lock:
        assert os.path.samestat(os.fstat(lock.fd), os.stat(path))


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is deleted meanwhile has no lock to take: its directory was renamed away."""
    directory = tmp_path / "web-1"
    directory.mkdir()
    flock = fcntl.flock

    def rename_away(fd: int, kind: int) -> None:
        if directory.exists():
            directory.rename(tmp_path / ".web-1")
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", rename_away)
    with pytest.raises(FileNotFoundError):
        Lock.take(str(directory / "lock"))
    with pytest.raises(FileNotFoundError):
        Lock.take(str(directory / "lock"))
    assert not held(str(tmp_path / ".web-1" / "lock"))


def test_a_file_replaced_again_and_again_is_given_up(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking a lock ends, whatever others do."""
    monkeypatch.setattr(_lock, "_is_at", lambda fd, path: False)
    assert Lock.take(path) is None


def test_a_look_does_not_mislead_a_taker(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`held` takes a shared lock for an instant, and a taker at that instant still gets the
    lock."""
    other = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_SH)
    monkeypatch.setattr(os, "sched_yield", lambda: fcntl.flock(other, fcntl.LOCK_UN))
    try:
        take(path).release()
    finally:
        os.close(other)


def test_a_taker_that_waits_for_a_look_to_end_gives_way(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taker that waits for a look holds no shared lock meanwhile, which would stop other
    takers."""
    other = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_SH)

    def take_it() -> None:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(os, "sched_yield", take_it)
    try:
        assert Lock.take(path) is None
        assert held(path)
    finally:
        os.close(other)


def test_a_shared_lock_that_stays_is_given_up(path: str) -> None:
    """A shared lock that stays for ever doesn't make a taker wait for ever."""
    other = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_SH)
    try:
        assert Lock.take(path) is None
    finally:
        os.close(other)


def test_looking_changes_nothing(path: str) -> None:
    """`held` neither makes a file nor keeps one locked nor takes a lock away."""
    assert not held(path)
    assert not os.path.exists(path)
    with take(path):
        assert held(path)
        assert held(path)
        assert Lock.take(path) is None
    assert not held(path)


@pytest.mark.parametrize("function", [Lock.take, held])
def test_no_descriptor_left(function: object, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of descriptors is an error of the machine, not "another process has the lock"."""

    def full(*args: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    assert callable(function)
    with pytest.raises(TooManyFiles):
        function(path)


def test_a_failure_leaves_no_descriptor(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong after the opening closes the file."""
    before = os.listdir("/proc/self/fd")

    def fail(fd: int, kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    for function in (Lock.take, held):
        with pytest.raises(OSError, match="No locks available"):
            function(path)
    assert os.listdir("/proc/self/fd") == before


# ---- descriptors -----------------------------------------------------------------


def test_a_descriptor_is_closed_once() -> None:
    """A descriptor's owner closes the descriptor, at the end of a block or earlier."""
    fd = os.open(os.devnull, os.O_RDONLY)
    with close_in_children(fd) as descriptor:
        assert descriptor.fd == fd
        descriptor.close()
        assert descriptor.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_forgotten_descriptor_warns_and_is_closed() -> None:
    """A descriptor without an owner is closed, with a warning."""
    fd = os.open(os.devnull, os.O_RDONLY)
    owners = [close_in_children(fd)]
    with pytest.warns(ResourceWarning, match=f"unclosed <Descriptor {fd}>"):
        owners.clear()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_no_fork_falls_into_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While `held` has a shared lock, no thread forks: the child would keep that lock for life.

    Each supervisor would then take the container for foreign. A look at a root looks in a thread.
    """
    path = str(tmp_path / "lock")
    seen = []
    flock = _lock._flock

    def note(fd: int, kind: int) -> bool:
        asking = threading.Thread(target=lambda: seen.append(NO_FORK.acquire(blocking=False)))
        asking.start()
        asking.join()
        return flock(fd, kind)

    with Lock.take(path) or pytest.fail("no lock"):
        monkeypatch.setattr(_lock, "_flock", note)
        assert held(path)
    assert seen == [False]
