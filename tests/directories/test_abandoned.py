"""What killed programs have left among temporary directories: the next program removes it.

A bundle without a path once stayed in memory for ever if its program was killed, unless a container
on a leash had the bundle. Such a bundle holds no lock, so the owner is read from the name.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.bundle import Bundle
from supervisor.directories import _abandoned, _temporary
from supervisor.directories._abandoned import PREFIX, Owner, new_name, sweep, sweep_once
from supervisor.directories._temporary import PLACE, Temporary, paths
from supervisor.system import look_at

STRANGER = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")

_PROGRAM = """
import sys
from supervisor import Bundle
made = Bundle.from_rootfs(sys.argv[1], ["true"])
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place that the environment names, and that no test has looked at yet."""
    path = tmp_path / "place"
    path.mkdir()
    monkeypatch.setenv(PLACE, str(path))
    monkeypatch.setattr(_temporary, "place", lambda: None)  # no plugin names them
    sweep_once.cache_clear()
    yield path
    sweep_once.cache_clear()


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    path.mkdir()
    return path


@pytest.fixture
def program(place: Path, rootfs: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str]]]:
    """Start programs that have a temporary bundle each; return the bundle's path."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        one = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(rootfs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        assert one.stdout is not None
        return one, one.stdout.readline().strip()

    yield start
    for one in started:
        one.communicate(timeout=20)


@pytest.fixture
def gone() -> Owner:
    """A process that has ended, and was reaped."""
    child = subprocess.Popen(["true"])
    now = look_at(child.pid)
    assert now is not None
    child.wait()
    return Owner(_abandoned._machine(), child.pid, now.start_time)


def _left(place: Path, owner: Owner, *, number: int = 0) -> Path:
    """Leave what a program has left."""
    path = place / f"{PREFIX}{owner.machine}-{owner.pid}-{owner.start_time}-{number:016x}"
    path.mkdir()
    path.chmod(0o711)
    (path / "config.json").touch()
    return path


def test_of_a_killed_program(
    place: Path, program: Callable[[], tuple[subprocess.Popen[str], str]]
) -> None:
    """The next program that makes a temporary directory removes a killed program's; those of living
    programs stay."""
    killed, left = program()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert os.listdir(place) == [os.path.basename(left)]
    _, kept = program()
    assert os.listdir(place) == [os.path.basename(kept)]
    _, another = program()
    assert sorted(os.listdir(place)) == sorted(map(os.path.basename, (kept, another)))


def test_where_nothing_is_locked(
    place: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, where a bundle holds no descriptor, the name shows that the owner lives."""
    monkeypatch.setattr(Temporary, "may_be_swept", False)
    with Bundle.from_rootfs(rootfs, ["true"]) as made:
        fd = os.open(made.path, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        sweep(str(place))
        assert os.path.isfile(f"{made.path}/config.json")


def test_while_it_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new directory that isn't opened and locked yet has a name that shows that the owner
    lives."""
    opened = _temporary._open

    def swept(path: str) -> object:
        sweep(str(place))
        return opened(path)

    monkeypatch.setattr(_temporary, "_open", swept)
    with Temporary.make() as made:
        assert os.path.isdir(made.path)


def test_of_who_is_gone(place: Path, gone: Owner) -> None:
    """All directories of a program that is gone are removed, even if another process has the pid by
    now."""
    _left(place, gone)
    now = look_at(os.getpid())
    assert now is not None
    _left(place, Owner(gone.machine, os.getpid(), now.start_time - 1))
    sweep(str(place))
    assert os.listdir(place) == []


def _another_machine(path: Path) -> Path:
    return path.rename(path.with_name(path.name.replace(_abandoned._machine(), "0" * 12)))


def _a_root(path: Path) -> Path:
    return path.rename(path.with_name(f"{PREFIX}0123456789abcdef"))


def _longer(path: Path) -> Path:
    return path.rename(path.with_name(f"{path.name}.mine"))


def _file(path: Path) -> Path:
    (path / "config.json").rename(path.with_name("file"))
    path.rmdir()
    return path.with_name("file").rename(path)


def _link(path: Path) -> Path:
    other = path.rename(path.with_name("other"))
    path.symlink_to(other)
    return other


def _foreign(path: Path) -> Path:
    os.chown(path, STRANGER, STRANGER)
    return path


def _writable(path: Path) -> Path:
    path.chmod(0o777)
    return path


@pytest.mark.parametrize(
    "change",
    [
        _another_machine,
        _a_root,
        _longer,
        _file,
        _link,
        pytest.param(_foreign, marks=root_only),
        _writable,
    ],
)
def test_what_stays(place: Path, gone: Owner, change: Callable[[Path], Path]) -> None:
    """A directory that isn't ours for certain, by name, kind, owner or mode, or isn't of this
    machine, stays."""
    kept = change(_left(place, gone))
    before = sorted(os.listdir(place))
    sweep(str(place))
    assert sorted(os.listdir(place)) == before
    assert kept.is_file() or (kept / "config.json").exists()


def test_what_somebody_holds_stays(place: Path, gone: Owner) -> None:
    """A locked directory is in use, and stays, whichever program has the lock."""
    left = _left(place, gone)
    fd = os.open(left, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    sweep(str(place))
    assert left.exists()
    os.close(fd)
    sweep(str(place))
    assert not left.exists()


def test_what_something_is_mounted_in_stays(
    place: Path, gone: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory with a mount inside stays: the removal would go on into the mount."""
    left = _left(place, gone)
    monkeypatch.setattr(_abandoned, "_mount_points", lambda: iter([f"{left}/rootfs/usr"]))
    sweep(str(place))
    assert left.exists()


def test_one_that_is_hidden_is_not_gone(
    place: Path, gone: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that isn't visible counts as alive: /proc may show no processes but our own
    (hidepid), and a zombie may have threads."""
    monkeypatch.setattr(_abandoned, "look_at", lambda pid: None)
    assert not attrs.evolve(gone, pid=os.getpid()).is_gone(gone.machine)
    assert not attrs.evolve(gone, pid=1).is_gone(gone.machine)
    assert gone.is_gone(gone.machine)


def test_once_in_a_process(place: Path, gone: Owner) -> None:
    """A process sweeps once, not at each bundle; a forked child is another process, and has a name
    of its own."""
    Temporary.make().remove()
    left = _left(place, gone)
    Temporary.make().remove()
    assert left.exists()
    ours = new_name(marked=True)
    child = os.fork()
    if child == 0:
        forgot = _abandoned._mark.cache_info().currsize == 0  # the pid may come again
        same = new_name(marked=True).split("-")[:5] == ours.split("-")[:5]
        Temporary.make().remove()
        os._exit(0 if forgot and not same and not left.exists() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_not_too_much_at_once(place: Path, gone: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep removes only a bounded number of directories, because a Trio task may be waiting: the
    next one goes on."""
    monkeypatch.setattr(_abandoned, "_AT_ONCE", 2)
    for number in range(3):
        _left(place, gone, number=number)
    sweep(str(place))
    assert len(os.listdir(place)) == 1
    sweep(str(place))
    assert os.listdir(place) == []


def test_a_root_is_its_keepers(place: Path) -> None:
    """An ephemeral root belongs to the keeper, and its name has no owner's pid."""
    names = [next(paths(marked=False)), next(paths())]
    owners = [os.path.basename(name).rpartition("-")[0] for name in names]
    assert [bool(_abandoned._OWNED.fullmatch(owner)) for owner in owners] == [False, True]


def test_where_proc_says_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc can't identify the machine, a name has no owner part, and no sweep removes
    the directory."""

    def refuse() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(_abandoned, "_machine", refuse)
    _abandoned._mark.cache_clear()
    try:
        assert new_name(marked=True).count("-") == 2
    finally:
        _abandoned._mark.cache_clear()


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    """A missing place raises nothing in the sweep: the make that follows reports it."""
    sweep(str(tmp_path / "nowhere"))
