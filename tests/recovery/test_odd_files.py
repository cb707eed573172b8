"""A socket, link or directory in the place of a file of ours is reported, and harms no other
container.

A socket called ``lock`` once kept a whole root from being opened; with a link as ``exit`` a
container couldn't be removed any more; a container whose ``starttime`` was a link that led nowhere
was removed, though it ran.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from supervisor import InvalidValue, State, Supervisor
from supervisor.recovery import _adopt, _adopt_all
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import pid_in, reap, shim_of, state_of

pytestmark = pytest.mark.runtimes("fake")
with_real = pytest.mark.runtimes("fake", "runc", "crun")

Make = Callable[[Path], None]


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _link(path: Path) -> None:
    kept = path.with_name(f".kept-{path.name}")
    path.symlink_to(kept)
    kept.touch(mode=0o600)


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


KINDS: Mapping[str, tuple[Make, str]] = {
    "socket": (_socket, "a socket"),
    "link": (_link, "a symbolic link"),
    "dangling": (_dangling, "a symbolic link"),
    "loop": (_loop, "a symbolic link"),
    "directory": (Path.mkdir, "a directory"),
    "fifo": (os.mkfifo, "a fifo"),
    **({"device": (_device, "a device")} if os.geteuid() == 0 else {}),
}
NO_FIFO: Mapping[str, tuple[Make, str]] = {
    **{name: made for name, made in KINDS.items() if name != "fifo"},
    "file": (Path.touch, "a regular file"),
}


def _replace(path: Path, make: Make) -> None:
    """Put something else in the place of a file, and keep the file beside its container."""
    aside = path.parent.parent / f".{path.parent.name}-{path.name}"
    if os.path.lexists(path):
        path.rename(aside)
    make(path)


def _restore(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    (path.parent.parent / f".{path.parent.name}-{path.name}").rename(path)


@pytest.fixture
def leave(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> Callable[..., object]:
    """Leave running containers of these names, each with an exec; return their shims' pids."""

    async def run(sup: Supervisor, name: str) -> None:
        box = await sup.create(name, bundle("sleep", "60"))
        await box.start()
        await box.exec(["sleep", "60"], id="job")

    async def run_all(*names: str) -> list[int]:
        async with supervisor(root) as sup, trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(run, sup, name)
        return [shim_of(root / name / process) for name in names for process in ("init", "job")]

    return run_all


async def test_locks(
    supervisor: OpenSupervisor, root: Path, leave: Callable[..., object], nothing_left: NothingLeft
) -> None:
    """Each such container is broken alone, with the file's name and what the file is; the others
    open."""
    await leave("good", *KINDS)  # type: ignore[misc]
    for name, (make, _) in KINDS.items():
        _replace(root / name / "lock", make)
    pids = [pid_in(root / name / "init") for name in KINDS]
    async with supervisor(root) as sup:
        assert (list(sup), sorted(sup.broken)) == (["good"], sorted(KINDS))
        for name, (_, what) in KINDS.items():
            assert f"{root}/{name}/lock: not a regular file, but {what}" in sup.broken[name].reason
            with pytest.raises(InvalidValue, match=f"{name}/lock: .* by hand"):
                await sup.delete_broken(name)
        assert {state_of(pid) for pid in pids} <= {"S", "R"}
    for name in KINDS:
        _restore(root / name / "lock")
    await _delete_all(supervisor, root, len(KINDS) + 1)
    await nothing_left()


async def test_a_lock_of_one_that_was_foreign(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The same holds when a container is taken over that another supervisor has released."""
    async with supervisor(root) as first:
        box = await first.create("a", bundle("sleep", "60"))
        await box.start()
        async with supervisor(root) as second:
            assert second["a"].foreign
            for make, what in KINDS.values():
                _replace(root / "a/lock", make)
                await second.adopt()
                assert f"a/lock: not a regular file, but {what}" in second.broken["a"].reason
                _restore(root / "a/lock")
                await second.adopt()
                assert second["a"].foreign and not second.broken
        await box.delete(force=True)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
async def test_what_the_disk_refuses(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """Whatever the system says of one container's files, only that container is broken."""
    async with supervisor(root) as first:
        for name in ("bad", "exec", "good"):
            box = await first.create(name, bundle("sleep", "60"))
            await box.start()
        await first["exec"].exec(["sleep", "60"], id="job")
        async with supervisor(root) as second:
            with monkeypatch.context() as patch:
                _refuse(patch, number, _adopt_all, "load", f"{root}/bad/state.json")
                _refuse(patch, number, _adopt.Lock, "take", f"{root}/bad/lock")
                await second.adopt()
                assert (sorted(second), list(second.broken)) == (["exec", "good"], ["bad"])
                assert os.strerror(number) in second.broken["bad"].reason
    with monkeypatch.context() as patch:
        _refuse(patch, number, _adopt.Lock, "take", f"{root}/bad/lock")
        _refuse(patch, number, _adopt.Lock, "take", f"{root}/exec/job/lock")
        async with supervisor(root) as sup:
            assert (sorted(sup), list(sup.broken)) == (["exec", "good"], ["bad"])
            assert os.strerror(number) in sup.broken["bad"].reason
            assert list(sup["exec"].processes) == ["init"]
            with pytest.raises(InvalidValue, match=os.strerror(number)):
                await sup.delete_broken("bad")
    await _delete_all(supervisor, root, 3)


def _refuse(patch: pytest.MonkeyPatch, number: int, owner: object, name: str, refused: str) -> None:
    """Have a function of a module fail for a path, which is one of the arguments."""
    real = getattr(owner, name)

    def fail(*args: object) -> object:
        if refused in args:
            raise OSError(number, os.strerror(number), refused)
        return real(*args)

    patch.setattr(owner, name, fail)


@with_real
@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("state.json", KINDS),
        ("init/process.json", KINDS),
        ("init/result.json", KINDS),
        ("init/exit", NO_FIFO),
    ],
)
async def test_delete_broken(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Callable[..., object],
    nothing_left: NothingLeft,
    file: str,
    kinds: Mapping[str, tuple[Make, str]],
) -> None:
    """`delete_broken` treats unreadable files as missing: running processes are killed, and all is
    removed."""
    shims = await leave("good", *kinds)  # type: ignore[misc]
    for name, (make, _) in kinds.items():
        _replace(root / name / file, make)
    async with supervisor(root) as sup:
        assert (list(sup), sorted(sup.broken)) == (["good"], sorted(kinds))
        for name, (_, what) in kinds.items():
            assert f"{name}/{file}: not a" in sup.broken[name].reason
            assert f"but {what}" in sup.broken[name].reason
            with trio.fail_after(20):
                await sup.delete_broken(name)
        await sup["good"].delete(force=True)
        await reap(*shims)
    _forget_aside(root)
    await nothing_left()


@with_real
async def test_delete_broken_whose_shims_are_not_named(
    supervisor: OpenSupervisor, root: Path, leave: Callable[..., object], nothing_left: NothingLeft
) -> None:
    """`delete_broken` reaches shims by `control` where the files that name the shims,
    the processes and the ends are replaced."""
    shims = await leave(*KINDS)  # type: ignore[misc]
    for name, (make, _) in KINDS.items():
        for file in ("state.json", "init/shim", "init/pid", "job/shim", "job/starttime"):
            _replace(root / name / file, make)
        if name != "fifo":
            _replace(root / name / "init/exit", make)
    async with supervisor(root) as sup:
        for name in KINDS:
            with trio.fail_after(20):
                await sup.delete_broken(name)
        await reap(*shims)
    _forget_aside(root)
    await nothing_left()


@with_real
@pytest.mark.parametrize("file", ["pid", "starttime", "shim", "started", "exitStatus", "control"])
async def test_as_if_missing(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Callable[..., object],
    nothing_left: NothingLeft,
    file: str,
) -> None:
    """A running container goes on where a file counts as missing: nothing was settled, and no
    process killed."""
    shims = await leave(*KINDS)  # type: ignore[misc]
    pids = {name: pid_in(root / name / "init") for name in KINDS}
    for name, (make, _) in KINDS.items():
        _replace(root / name / "init" / file, make)
        _replace(root / name / "job" / file, make)
    async with supervisor(root) as sup:
        assert (sorted(sup), dict(sup.broken)) == (sorted(KINDS), {})
        for name, pid in pids.items():
            assert (sup[name].state, state_of(pid)) == (State.RUNNING, "S")
            assert (await (await sup[name].exec(["true"])).wait()).code == 0
    _forget_aside(root)
    await _delete_all(supervisor, root, len(KINDS))
    await reap(*shims)
    await nothing_left()


@pytest.mark.parametrize("file", ["lock", "process.json", "result.json", "exit"])
async def test_execs(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Callable[..., object],
    nothing_left: NothingLeft,
    file: str,
) -> None:
    """An exec is set aside alone, and is deleted with its container."""
    kinds = NO_FIFO if file == "exit" else KINDS
    shims = await leave(*kinds)  # type: ignore[misc]
    for name, (make, _) in kinds.items():
        _replace(root / name / "job" / file, make)
    async with supervisor(root) as sup:
        assert (sorted(sup), dict(sup.broken)) == (sorted(kinds), {})
        assert {tuple(box.processes) for box in sup.values()} == {("init",)}
    _forget_aside(root)
    await _delete_all(supervisor, root, len(kinds))
    await reap(*shims)
    await nothing_left()


@with_real
async def test_under_an_open_supervisor(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """The supervisor that launched a shim knows the shim, whatever stands in the place of its file
    by now."""
    async with supervisor(root) as sup:
        for make, _ in KINDS.values():
            box = await sup.create("a", bundle("sleep", "60"))
            await box.start()
            await box.exec(["sleep", "60"], id="job")
            for file in ("lock", "init/shim", "job/shim", "init/exit", "job/lock"):
                _replace(root / "a" / file, make)
            await box.delete(force=True)
            _forget_aside(root)
            await nothing_left()


async def test_a_foreign_one_is_not_gone(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker takes a link that leads nowhere for a file, not for a delete."""
    async with supervisor(root) as first:
        box = await first.create("a", bundle("sleep", "60"))
        async with supervisor(root) as second:
            seen = second["a"]
            _replace(root / "a/state.json", _dangling)
            assert seen.state is State.CREATED
            (root / "a/init/started").symlink_to("/nowhere/at/all")
            assert seen.state is State.RUNNING
            (root / "a/init/started").unlink()
            _restore(root / "a/state.json")
        await box.delete(force=True)


async def test_started_is_not_written_through_a_link(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path
) -> None:
    """`started` isn't written through a link: the target isn't ours."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        (root / "a/init/started").symlink_to(workdir / "made")
        await box.start()
        assert not (workdir / "made").exists()
        await box.delete(force=True)


def _forget_aside(root: Path) -> None:
    """Remove what `_replace` has kept beside containers."""
    for path in [*root.glob(".*-*"), *root.glob("*/.*-*")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


async def _delete_all(supervisor: OpenSupervisor, root: Path, count: int) -> None:
    async with supervisor(root) as sup, trio.open_nursery() as nursery:
        assert (len(sup), dict(sup.broken)) == (count, {})
        for box in sup.values():
            nursery.start_soon(partial(box.delete, force=True))
