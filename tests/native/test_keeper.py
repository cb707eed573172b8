"""The keeper: what a killed supervisor leaves is removed, and nothing else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from tests.native.keeper import KeeperRig, impatient, locked, patient
from tests.native.leash import Break, Leash, breaks
from tests.native.programs import Programs
from tests.native.rig import SLEEP, Rig, ended, runtime, shell

# ---- when and what -------------------------------------------------------------------------


@breaks
def test_the_leash_sets_it_off(keeper: KeeperRig, leash: Leash, end: Break, tmp_path: Path) -> None:
    """Nothing happens until the leash breaks, one way or the other; then the list is worked off."""
    box = keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    keeper.launch()
    keeper.wait_ready()
    assert box.exists()
    end(leash)
    assert keeper.wait_gone() == 0
    assert (tmp_path / "ran").exists()
    assert not box.exists()
    assert keeper.root.exists()


def test_a_supervisor_that_closed_in_good_order(keeper: KeeperRig) -> None:
    """A supervisor that closed in good order leaves no list, so the keeper touches nothing."""
    (keeper.root / "durable/init").mkdir(parents=True)
    (keeper.root / "durable/lock").touch()
    (keeper.root / ".runtime").mkdir()
    (keeper.root / "file").touch()
    keeper.clean()
    assert sorted(os.listdir(keeper.root)) == [".runtime", "durable", "file"]


@impatient  # the lock that is held is waited for
def test_temporary_directories(keeper: KeeperRig, tmp_path: Path) -> None:
    """Directories that were being made or removed are swept away, and no list there is worked
    off."""
    witness = tmp_path / "witness"
    for name in (".new-dead", ".deleted-dead"):
        keeper.container(name, ["run", "/usr/bin/touch", str(witness)])
    (keeper.root / ".deleted-half/init").mkdir(parents=True)
    (keeper.root / ".new-empty").mkdir()
    (keeper.root / ".new-alive").mkdir()
    with (keeper.root / ".new-alive/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keeper.clean()
    assert os.listdir(keeper.root) == [".new-alive"]
    assert not witness.exists()


def test_an_empty_list(keeper: KeeperRig) -> None:
    """An empty list says that there is nothing to do, not even to remove the directory."""
    box = keeper.container("box")
    keeper.clean()
    assert box.exists()


def test_remove_root(keeper: KeeperRig) -> None:
    """An ephemeral root goes as a whole, with what has no list."""
    keeper.container("box", ["run", "/bin/true"])
    (keeper.root / ".runtime/state").mkdir(parents=True)
    (keeper.root / "file").write_text("x")
    keeper.clean("remove-root")
    assert not keeper.root.exists()


def test_a_missing_root(keeper: KeeperRig) -> None:
    """A root that the supervisor has removed is no error."""
    keeper.root.rmdir()
    keeper.clean("remove-root")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["3:4"],
        ["3", "/"],
        ["x:y", "/"],
        ["1:2", "/"],
        ["3:4", "/", "remove"],
        ["3:4", "/", "remove-root", "x"],
    ],
    ids=repr,
)
def test_usage(programs: Programs, words: list[str]) -> None:
    """A command line that the keeper doesn't understand is refused before any wait."""
    done = subprocess.run([programs.keeper, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, 34, 64]
)
def test_signals_do_nothing(keeper: KeeperRig, tmp_path: Path, number: int) -> None:
    """A service manager's signal to the whole group doesn't end the keeper before the work is
    done."""
    keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    keeper.launch()
    keeper.wait_ready()
    os.kill(keeper.pid, number)
    keeper.leash.let_go()
    assert keeper.wait_gone() == 0
    assert (tmp_path / "ran").exists()


def test_it_keeps_nothing_open(keeper: KeeperRig) -> None:
    """The keeper holds the leash, the root, and no other descriptor of the launcher."""
    extra = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(20)]
    for fd in (*extra, *keeper.leash.fds, keeper.directory):
        os.set_inheritable(fd, True)
    keeper.launch(close_fds=False, pass_fds=())
    for fd in extra:
        os.close(fd)
    keeper.wait_ready()
    opened = {fd: os.readlink(f"/proc/{keeper.pid}/fd/{fd}") for fd in range(6)}
    assert len(os.listdir(f"/proc/{keeper.pid}/fd")) == 6
    assert {opened[fd] for fd in range(3)} == {"/dev/null"}
    assert opened[5] == str(keeper.root)


# ---- what the keeper waits for --------------------------------------------------------------


@patient
@pytest.mark.parametrize("name", ["lock", "init/shim", "exec-1/shim"])
def test_it_waits_for_whoever_is_at_work(keeper: KeeperRig, tmp_path: Path, name: str) -> None:
    """While a shim runs, or a call of the runtime that holds the lock, nothing is removed."""
    box = keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    (box / "exec-1").mkdir()
    (box / "exec-1/shim").touch()
    with locked(box / name):
        keeper.launch("remove-root")
        keeper.leash.let_go()
        keeper.wait_waiting(box / name)
        assert not (tmp_path / "ran").exists()
        assert (box / "cleanup").exists()
    assert keeper.wait_gone() == 0
    assert (tmp_path / "ran").exists()
    assert not keeper.root.exists()


@impatient
def test_a_stuck_shim_does_not_keep_the_rest(keeper: KeeperRig, tmp_path: Path) -> None:
    """The keeper waits for all stuck shims together for a while, and then goes on."""
    boxes = [
        keeper.container(f"box-{i}", ["run", "/bin/touch", str(tmp_path / f"ran-{i}")])
        for i in range(100)
    ]
    with contextlib.ExitStack() as stack:
        for box in boxes:
            stack.enter_context(locked(box / "init/shim"))
        keeper.clean()
    assert all((tmp_path / f"ran-{i}").exists() for i in range(100))
    assert os.listdir(keeper.root) == []


@impatient
def test_an_adopted_container_is_left_alone(keeper: KeeperRig, tmp_path: Path) -> None:
    """A container whose lock stays held was adopted by another supervisor: the keeper leaves it
    alone."""
    box = keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    with locked(box / "lock"):
        keeper.clean()
    assert not (tmp_path / "ran").exists()
    assert (box / "cleanup").exists()


@impatient
def test_nobody_adopts_from_an_ephemeral_root(keeper: KeeperRig, tmp_path: Path) -> None:
    """Below a root that is to be removed a lock that is held for good holds nothing up."""
    box = keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    with locked(box / "lock"):
        keeper.clean("remove-root")
    assert (tmp_path / "ran").exists()
    assert not keeper.root.exists()


@patient
def test_a_container_of_the_same_name(keeper: KeeperRig, tmp_path: Path) -> None:
    """If the directory was replaced during the wait, the new one is foreign."""
    box = keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    with locked(box / "lock"):
        keeper.launch()
        keeper.leash.let_go()
        keeper.wait_waiting(box / "lock")
        box.rename(tmp_path / "old")
        keeper.container("box", ["run", "/bin/touch", str(tmp_path / "ran")])
    assert keeper.wait_gone() == 0
    assert not (tmp_path / "ran").exists()
    assert (box / "cleanup").exists()


def test_more_containers_than_descriptors(keeper: KeeperRig, tmp_path: Path) -> None:
    """The keeper releases the locks of one container before the next one's turn."""
    for i in range(60):
        keeper.container(f"box-{i}", ["run", "/bin/touch", str(tmp_path / f"ran-{i}")])
    keeper.launch(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)))
    keeper.leash.let_go()
    assert keeper.wait_gone() == 0
    assert all((tmp_path / f"ran-{i}").exists() for i in range(60))
    assert os.listdir(keeper.root) == []


# ---- with shims ----------------------------------------------------------------------------


@breaks
def test_with_a_shim(keeper: KeeperRig, leash: Leash, end: Break, tmp_path: Path) -> None:
    """A shim and a keeper on one leash: the process is dead and recorded before the list's turn."""
    box = keeper.container(
        "box", ["run", "/bin/cp", str(keeper.root / "box/exec/exitStatus"), str(tmp_path)]
    )
    shim = Rig(keeper.programs, box / "exec")
    try:
        shim.launch(runtime(*SLEEP), "--leash", str(leash), pass_fds=leash.fds)
        pid = shim.made()
        keeper.launch("remove-root")
        end(leash)
        assert shim.wait_gone() == 0
        assert keeper.wait_gone() == 0
        assert ended(pid)
        assert (tmp_path / "exitStatus").read_text().startswith("137 9 ")
        assert not keeper.root.exists()
    finally:
        shim.close()


def test_a_shim_that_comes_too_late(keeper: KeeperRig, leash: Leash) -> None:
    """A shim that is launched while its directory is removed makes nothing, and leaves nothing."""
    box = keeper.container("box", ["run", "/bin/true"])
    shim = Rig(keeper.programs, box / "exec")
    try:
        keeper.launch("remove-root")
        leash.let_go()
        shim.launch(shell("sleep 1000 & echo $! >pid"), "--leash", str(leash), pass_fds=leash.fds)
        assert shim.say()["phase"] in {"options", "files", "fifos", "leash"}
        assert shim.wait_gone() == 1
        assert keeper.wait_gone() == 0
        assert not keeper.root.exists()
    finally:
        shim.close()
