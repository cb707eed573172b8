"""The directories of containers: made, swept away and removed without a half-made one ever
showing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor import State, TooManyFiles
from supervisor.container import _removal
from supervisor.observers import Observation, Point
from supervisor.system import Lock
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.descriptors import only

pytestmark = pytest.mark.runtimes("fake")


async def test_a_new_directory_that_somebody_sweeps_away(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A new directory that another supervisor sweeps away before the lock is inside is made
    again."""
    swept: list[Path] = []

    def observe(seen: Observation) -> None:
        if seen is Point.TEMPORARY_MADE and not swept:
            swept.extend(root.glob(".new-*"))
            swept[0].rmdir()

    async with supervisor(root, _observer=observe) as sup:
        async with await sup.create("a", bundle("true")):
            assert len(swept) == 1


async def test_a_new_directory_that_somebody_is_about_to_sweep_away(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A new directory whose lock a sweeper acquired first is left to the sweeper, and another one
    made."""
    swept: list[Path] = []
    locks: list[Lock | None] = []

    def observe(seen: Observation) -> None:
        if seen is Point.TEMPORARY_MADE and len(swept) < 5:
            swept.extend(path for path in root.glob(".new-*") if path not in swept)
            locks.append(Lock.take(str(swept[-1] / "lock")))

    async with supervisor(root, _observer=observe) as sup:
        async with await sup.create("a", bundle("true")) as a:
            assert len(swept) == 5 and a.state is State.CREATED
        for lock in locks:
            assert lock is not None
            lock.release()
        await sup.adopt()
        assert list(root.glob(".new-*")) == []


async def test_whatever_the_umask(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Whatever the umask, the root of a user namespace can pass through the directories to the
    rootfs."""
    before = os.umask(0o077)
    try:
        async with supervisor(root) as sup, await sup.create("a", bundle("true")):
            modes = {path.stat().st_mode & 0o777 for path in (root / "a", root / "a/bundle")}
            assert modes == {0o711}
    finally:
        os.umask(before)


async def test_nobody_sees_half_a_directory(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removed directory loses its name before any file inside is removed."""
    seen: list[tuple[bool, bool]] = []
    remove = _removal._remove_tree

    def and_look(path: str) -> None:
        seen.append(((root / "a").exists(), os.path.basename(path).startswith(".deleted-")))
        with monkeypatch.context() as patch:
            patch.setattr(_removal, "_remove_tree", remove)
            remove(path)

    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("true"))
        monkeypatch.setattr(_removal, "_remove_tree", and_look)
        await a.delete()
        assert seen == [(False, True)]


def test_sweeping_what_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper holds the lock of a new directory while removing it, so the maker can't acquire the
    lock then.

    The sweeper once only checked that the lock was free, and a quick maker went on in half a
    directory.
    """
    for name in (".new-empty", ".new-begun"):
        (tmp_path / name).mkdir()
    (tmp_path / ".new-begun/lock").touch()
    taken: list[Lock | None] = []
    remove = _removal.remove_directory

    def maker_is_quick(path: str) -> None:
        taken.append(Lock.take(os.path.join(path, "lock")))
        remove(path)

    monkeypatch.setattr(_removal, "remove_directory", maker_is_quick)
    _removal.sweep(str(tmp_path))
    assert taken == [None] and os.listdir(tmp_path) == []


def test_sweeping_what_is_none_of_ours(tmp_path: Path) -> None:
    """A file with a name like ours is left, and keeps no other file from being removed."""
    (tmp_path / ".new-1").touch()
    (tmp_path / ".deleted-1").touch()
    (tmp_path / ".new-2").mkdir()
    _removal.sweep(str(tmp_path))
    assert ".new-2" not in os.listdir(tmp_path)


def test_sweeping_without_descriptors(tmp_path: Path) -> None:
    """A root that can't be listed at that moment isn't taken for an empty one."""
    with only(0), pytest.raises(TooManyFiles):
        _removal.sweep(str(tmp_path))


def test_what_cannot_be_removed_stays_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file that can't be removed doesn't keep the others, and is no error."""
    (tmp_path / "a/deep").mkdir(parents=True)
    for name in ("one", "two", "deep/three"):
        (tmp_path / "a" / name).touch()
    stuck: list[str] = []
    unlink = os.unlink

    def fail_first(path: str, **named: int) -> None:
        if not stuck:
            stuck.append(os.path.basename(path))
            raise PermissionError(path)
        unlink(path, **named)

    monkeypatch.setattr("supervisor.container._removal.os.unlink", fail_first)
    _removal.remove_directory(str(tmp_path / "a"))
    [doomed] = tmp_path.iterdir()
    assert doomed.name.startswith(".deleted-")
    assert [path.name for path in doomed.rglob("*") if path.is_file()] == stuck
    monkeypatch.undo()
    _removal.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A sweep doesn't remove the target of a link in a directory of ours."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to(tmp_path / "other")
    _removal.remove_directory(str(tmp_path / "a"))
    assert os.listdir(tmp_path) == ["other"] and os.listdir(tmp_path / "other") == ["file"]
