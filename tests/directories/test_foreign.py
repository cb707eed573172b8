"""Below a durable root only our own files are believed, and only our own directories changed, run
or deleted.

A foreign user's subdirectory with a forged `state.json` once had its `runtime` run as root by the
next open, and was deleted; a `lock` was made in every directory before anything was looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import ContainerExists, InvalidValue, ProcessEnded
from supervisor.container import _removal
from supervisor.shim import send_line
from supervisor.state import ContainerRecord, Intent, dump
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import pid_in, state_of
from tests.support.users import own_mounts

pytestmark = pytest.mark.runtimes("fake")

STRANGER = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
Spoil = Callable[[Path], None]


def _foreign(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def _group_writable(path: Path) -> None:
    path.chmod(0o775)


def _writable(path: Path) -> None:
    path.chmod(0o757)


spoils = pytest.mark.parametrize("spoil", [_foreign, _group_writable, _writable])


def _contents(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what is below a directory: owner, inode and content of all."""
    return {
        str(one.relative_to(path)): (
            one.lstat().st_uid,
            one.lstat().st_ino,
            one.read_bytes() if one.is_file() and not one.is_symlink() else b"",
        )
        for one in (path, *path.rglob("*"))
    }


def _forge(path: Path, intent: Intent | None) -> Path:
    """Make a container's directory whose runtime is a program of the stranger's; return the file
    that this program makes when run."""
    ran = path.parent.parent / f"ran-{path.name}"
    evil = path / "evil"
    path.mkdir(parents=True)
    evil.write_text(f"#!/bin/sh\ntouch {ran}\n")
    evil.chmod(0o755)
    record = ContainerRecord(
        id=path.name,
        root=str(path.parent),
        bundle="/",
        runtime=str(evil),
        runtime_root="/nonexistent",
        shim="/nonexistent",
        timeout_ns=10**9,
        created_ns=1,
        cgroup=None,
        boot_id="b",
        intent=intent,
    )
    (path / "state.json").write_bytes(dump(record))
    return ran


@root_only
@spoils
@pytest.mark.parametrize("intent", [None, *Intent])
async def test_a_forged_container(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, spoil: Spoil, intent: Intent | None
) -> None:
    """A forged container is listed with the reason, and open, adopt, create and delete_broken leave
    it alone."""
    box = root / "uploads"
    ran = _forge(box, intent)
    spoil(box)
    before = _contents(box)
    async with supervisor(root) as sup:
        assert list(sup) == [] and list(sup.broken) == ["uploads"]
        reason = sup.broken["uploads"].reason
        assert ("uid 65534" if spoil is _foreign else "others") in reason
        with pytest.raises(InvalidValue, match="isn't deleted"):
            await sup.delete_broken("uploads")
        with pytest.raises(ContainerExists, match="uploads"):
            await sup.create("uploads", bundle("true"))
        assert await sup.adopt() == [] and list(sup.broken) == ["uploads"]
    assert _contents(box) == before and not ran.exists()


@root_only
@pytest.mark.parametrize("name", ["state.json", "lock", "init/process.json"])
@spoils
async def test_a_file_that_decides(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, name: str, spoil: Spoil
) -> None:
    """A file that others may write to is garbage, also in a directory of ours, and the container is
    broken."""
    async with supervisor(root) as sup:
        await sup.create("a", bundle("true"))
    spoil(root / "a" / name)
    async with supervisor(root) as sup:
        assert list(sup) == [] and name in sup.broken["a"].reason
    (root / "a" / name).chmod(0o600)
    os.chown(root / "a" / name, os.geteuid(), os.getegid())
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)


@root_only
@spoils
async def test_a_process_directory(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, spoil: Spoil
) -> None:
    """An exec's directory must be ours: its files say which process is signalled, and where lines
    are written."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        await a.exec(["sleep", "60"], id="job")
    pid = pid_in(root / "a/job")
    spoil(root / "a/job")
    async with supervisor(root) as sup:
        assert "process job" in sup.broken["a"].reason
        with pytest.raises(InvalidValue, match="isn't deleted"):
            await sup.delete_broken("a")
        assert state_of(pid) == "S"
        os.chown(root / "a/job", os.geteuid(), os.getegid())
        (root / "a/job").chmod(0o711)
        [a] = await sup.adopt()
        await a.delete(force=True)


@root_only
@pytest.mark.parametrize("name", [".new-0123456789abcdef", ".deleted-0123456789abcdef"])
@spoils
@pytest.mark.parametrize("full", [False, True])
async def test_temporary_names(
    supervisor: OpenSupervisor, root: Path, name: str, spoil: Spoil, full: bool
) -> None:
    """A directory with a temporary name is swept only if it is ours, empty or not."""
    path = root / name
    path.mkdir(parents=True)
    root.chmod(0o711)
    if full:
        (path / "precious").write_text("mine")
    spoil(path)
    before = _contents(path)
    async with supervisor(root) as sup:
        assert dict(sup.broken) == {}
        await sup.adopt()
    assert _contents(path) == before


async def test_data_of_a_users_own(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A directory that never was a container's is listed, and keeps all its files."""
    (root / "data/init").mkdir(parents=True)
    (root / "data/init/thesis.txt").write_text("precious")
    (root / "empty").mkdir()
    before = {name: _contents(root / name) for name in ("data", "empty")}
    async with supervisor(root) as sup:
        assert sorted(sup.broken) == ["data", "empty"]
        for id in ("data", "empty"):
            assert "no container" in sup.broken[id].reason
            with pytest.raises(InvalidValue, match=r"isn't deleted: .*no container"):
                await sup.delete_broken(id)
            with pytest.raises(ContainerExists):
                await sup.create(id, bundle("true"))
        async with await sup.create("mine", bundle("true")):
            pass
    assert {name: _contents(root / name) for name in ("data", "empty")} == before


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "link to a directory"])
async def test_what_stands_for_a_lock(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, kind: str
) -> None:
    """A link or a fifo in the place of a lock isn't followed or waited for; the other containers
    load."""
    async with supervisor(root) as sup:
        for id in "ab":
            await sup.create(id, bundle("true"))
    lock, target = root / "a/lock", workdir / "target"
    os.rename(lock, root / "a/kept")
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "directory":
        lock.mkdir()
    else:
        if kind != "link":
            target.mkdir()
        lock.symlink_to(target)
    async with supervisor(root) as sup:
        assert list(sup) == ["b"] and "lock" in sup.broken["a"].reason
        with pytest.raises(InvalidValue, match="isn't deleted"):
            await sup.delete_broken("a")
        assert target.exists() == (kind == "link to a directory")
        (shutil.rmtree if kind == "directory" else os.unlink)(lock)
        os.rename(root / "a/kept", lock)
        await sup.adopt()
        for box in tuple(sup.values()):
            await box.delete(force=True)


@root_only
@pytest.mark.parametrize("sticky", [False, True])
async def test_a_root_inside_somebody_elses(
    supervisor: OpenSupervisor, workdir: Path, sticky: bool
) -> None:
    """A root inside a foreign user's directory is refused, and not made: the user could swap the
    root under an open supervisor."""
    home = workdir / "home"
    home.mkdir()
    home.chmod(0o1755 if sticky else 0o755)
    os.chown(home, STRANGER, STRANGER)
    with pytest.raises(InvalidValue, match=rf"{home} belongs to uid {STRANGER}"):
        async with supervisor(home / "deep/root"):
            raise AssertionError("it was opened")
    assert os.listdir(home) == []


async def test_a_root_that_others_may_rename(supervisor: OpenSupervisor, workdir: Path) -> None:
    """A root in a directory that every user may write to is refused, unless the directory is
    sticky."""
    shared = workdir / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InvalidValue, match=rf"others may write to {shared}.*chmod go-w"):
        async with supervisor(shared / "root"):
            raise AssertionError("it was opened")
    assert os.listdir(shared) == []
    shared.chmod(0o1777)
    async with supervisor(shared / "root"):
        pass


async def test_a_root_made_under_umask_0(supervisor: OpenSupervisor, workdir: Path) -> None:
    """Under umask 0, directories made above the root would be writable by all: the root is refused,
    and they are removed."""
    before = os.umask(0)
    try:
        with pytest.raises(InvalidValue, match=f"others may write to {workdir}/a"):
            async with supervisor(workdir / "a/b/root"):
                raise AssertionError("it was opened")
    finally:
        os.umask(before)
    assert not (workdir / "a").exists()


@root_only
@spoils
async def test_a_runtime_root_of_somebody_else(
    supervisor: OpenSupervisor, root: Path, spoil: Spoil
) -> None:
    """A root whose runtime root is a foreign user's isn't opened: the runtime's files hold hooks,
    which the runtime runs."""
    (root / ".runtime").mkdir(parents=True)
    root.chmod(0o711)
    spoil(root / ".runtime")
    with pytest.raises(InvalidValue, match=rf"{root}/\.runtime"):
        async with supervisor(root):
            raise AssertionError("it was opened")
    os.rmdir(root / ".runtime")


async def test_a_line_for_a_shim_is_written_into_a_fifo_only(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A line for a shim is written only into a fifo: a file, or a link to one, in the fifo's place
    is left unchanged."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        control, file = root / "a/init/control", root / "file"
        os.rename(control, root / "a/init/kept")
        file.write_text("precious")
        for stand_in in (os.link, os.symlink):
            stand_in(file, control)
            with pytest.raises(ProcessEnded, match=f"{control}: not a fifo, but"):
                send_line(str(control), "1 2 3")
            os.unlink(control)
        os.rename(root / "a/init/kept", control)
        assert file.read_text() == "precious"
        file.unlink()
        await a.delete(force=True)
        await nothing_left()


@root_only
@pytest.mark.parametrize("name", ["logs", "runs", "bundle", "init", ".hidden", "anything"])
@spoils
async def test_any_directory_in_it(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, name: str, spoil: Spoil
) -> None:
    """A delete doesn't enter a foreign user's directory: once the user led it on to the host's."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    path = root / "a" / name
    path.mkdir(exist_ok=True)
    mode = path.stat().st_mode & 0o7777
    spoil(path)
    before = _contents(path)
    async with supervisor(root) as sup:
        assert name in sup.broken["a"].reason
        with pytest.raises(InvalidValue, match="isn't deleted"):
            await sup.delete_broken("a")
        assert _contents(path) == before
        os.chown(path, os.geteuid(), os.getegid())
        path.chmod(mode)
        [a] = await sup.adopt()
        await a.delete(force=True)


@pytest.mark.parametrize("name", ["logs", "runs", "bundle", "init"])
async def test_a_link_in_place_of_a_directory(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, name: str
) -> None:
    """A link in the place of a directory isn't followed."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    path, elsewhere = root / "a" / name, workdir / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    else:
        elsewhere.mkdir()
    path.symlink_to(elsewhere)
    async with supervisor(root) as sup:
        assert "is no directory" in sup.broken["a"].reason
        path.unlink()
        if any(elsewhere.iterdir()):
            elsewhere.rename(path)
        [a] = await sup.adopt()
        await a.delete(force=True)


async def test_a_directory_that_becomes_a_link_while_it_is_emptied(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that becomes a link while being emptied isn't followed: the opened directory must
    be the one that was looked at."""
    doomed, host = workdir / "doomed", workdir / "host"
    (doomed / "in").mkdir(parents=True)
    host.mkdir()
    (host / "precious").touch()
    real = _removal.openat2

    def swapped(directory: int, name: str, flags: int, resolve: int) -> int:
        (doomed / name).rename(doomed / "moved")
        (doomed / name).symlink_to(host)
        return real(directory, name, flags, resolve)

    monkeypatch.setattr(_removal, "openat2", swapped)
    _removal._remove_tree(str(doomed))
    assert (host / "precious").exists()


@root_only
async def test_a_mount_in_it_is_not_emptied(workdir: Path) -> None:
    """A mount in a directory isn't emptied, even from the same file system: its files aren't
    ours."""
    if not own_mounts():
        pytest.skip("only in a mount namespace of its own (scripts/test) something is mounted")
    doomed, host = workdir / "doomed", workdir / "host"
    (doomed / "in").mkdir(parents=True)
    host.mkdir()
    (host / "precious").touch()
    subprocess.run(["mount", "--bind", host, doomed / "in"], check=True)
    try:
        _removal._remove_tree(str(doomed))
        assert (host / "precious").exists()
    finally:
        subprocess.run(["umount", doomed / "in"], check=True)
    _removal._remove_tree(str(doomed))
    assert not doomed.exists()


@pytest.mark.parametrize("verb", ["start", "delete"])
async def test_a_link_in_place_of_a_runtimes_log(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, verb: str
) -> None:
    """A link in the place of a runtime's log isn't followed: once the target was emptied, and
    written to."""
    precious = workdir / "precious"
    precious.write_text("kept")
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        log = root / f"a/init/log-{verb}.json"
        log.unlink(missing_ok=True)
        log.symlink_to(precious)
        await a.start()
        await a.delete(force=True)
    assert precious.read_text() == "kept"
