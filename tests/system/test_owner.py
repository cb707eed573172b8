"""The owner of a directory, and the users who could put another directory in its place."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.system import _owner as owner
from supervisor.system import distrust, distrust_directory, distrust_way

STRANGER = 65534
_PR_SET_DUMPABLE = 4
_CLONE_NEWUSER = 0x10000000

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of ours, below a directory that each test spoils."""
    path = tmp_path / "above" / "place"
    path.mkdir(parents=True)
    for directory in (path, path.parent):
        directory.chmod(0o755)
    return path


def _group(gid: int, name: str, members: list[str]) -> Callable[[int], grp.struct_group]:
    return lambda asked: grp.struct_group((name, "x", asked, members))


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o700, None), (0o755, None), (0o775, "0775"), (0o757, "0757"), (0o1777, "1777")],
)
def test_modes(place: Path, mode: int, why: str | None) -> None:
    """A directory that others may write isn't ours alone; here a sticky bit doesn't help."""
    place.chmod(mode)
    told = distrust_directory(str(place))
    assert told is None if why is None else told is not None and why in told


@root_only
def test_an_owner(place: Path) -> None:
    """A directory of another user isn't ours, whatever the mode."""
    os.chown(place, STRANGER, 0)
    assert distrust(os.stat(place)) == f"belongs to uid {STRANGER}"


def test_no_directory(place: Path) -> None:
    """A link isn't followed to a directory of ours; a fifo and a file are none."""
    (place / "link").symlink_to(place)
    (place / "file").touch()
    os.mkfifo(place / "fifo")
    for name in ("link", "file", "fifo"):
        assert distrust_directory(str(place / name)) == "is no directory"
    with pytest.raises(FileNotFoundError):
        distrust_directory(str(place / "missing"))


@root_only
@pytest.mark.parametrize("sticky", [0, 0o1000])
def test_a_way_through_somebody_elses(place: Path, sticky: int) -> None:
    """The owner of a directory on the way may replace what is inside, also if sticky, or
    missing."""
    os.chown(place.parent, STRANGER, STRANGER)
    place.parent.chmod(0o755 | sticky)
    for path in (place, place / "missing" / "more"):
        why = distrust_way(str(path))
        assert why is not None and str(place.parent) in why and str(STRANGER) in why


@pytest.mark.parametrize("mode", [0o757, 0o777, 0o775])
def test_a_way_that_others_may_write(
    place: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may rename the place in a directory that they may write, unless it is sticky."""
    monkeypatch.setattr(grp, "getgrgid", _group(0, "staff", []))
    place.parent.chmod(mode)
    why = distrust_way(str(place))
    assert why is not None and "chmod go-w" in why and str(place.parent) in why
    place.parent.chmod(mode | 0o1000)
    assert distrust_way(str(place)) is None


def test_the_place_itself_is_not_of_its_way(place: Path) -> None:
    """The way doesn't include the place, which is checked when the place is open."""
    place.chmod(0o777)
    assert distrust_way(str(place)) is None


def test_a_group_of_our_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's private group (umask 002) has no other member, and so is no danger."""
    us = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(pwd, "getpwall", lambda: [us])
    place.parent.chmod(0o775)
    monkeypatch.setattr(grp, "getgrgid", _group(0, us.pw_name, [us.pw_name]))
    assert distrust_way(str(place)) is None
    monkeypatch.setattr(grp, "getgrgid", _group(0, us.pw_name, [us.pw_name, "mallory"]))
    assert distrust_way(str(place)) is not None
    monkeypatch.setattr(grp, "getgrgid", _group(0, "staff", [us.pw_name]))
    assert distrust_way(str(place)) is not None


def test_a_group_that_is_somebody_elses_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The members of a group that the group file names aren't all: users have a first group too."""
    us = pwd.getpwuid(os.geteuid())
    place.parent.chmod(0o775)
    gid = place.parent.stat().st_gid
    other = pwd.struct_passwd(("mallory", "x", 4321, gid, "", "/", "/bin/sh"))
    monkeypatch.setattr(grp, "getgrgid", _group(gid, us.pw_name, []))
    monkeypatch.setattr(pwd, "getpwall", lambda: [us, other])
    assert distrust_way(str(place)) is not None


@pytest.mark.parametrize(("uid_map", "trusted"), [("0 0 1\n", True), ("0 0 4294967295\n", False)])
def test_an_unmapped_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid_map: str, trusted: bool
) -> None:
    """In a user namespace the machine's root has no id, and isn't taken for ``nobody``."""
    told = tmp_path / "uid_map"
    told.write_text(uid_map)
    monkeypatch.setattr(owner, "_UID_MAP", str(told))
    assert owner._is_unmapped(STRANGER) is trusted
    assert owner._is_unmapped(1000) is False


def test_without_a_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unreadable uid map makes no other user trusted."""
    monkeypatch.setattr(owner, "_UID_MAP", str(tmp_path / "missing"))
    assert owner._is_unmapped(STRANGER) is False


@root_only
def test_in_a_namespace() -> None:
    """With one user mapped, the machine's own directories are no stranger's: the real kernel."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(tell, _way_in_a_namespace().encode())
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with open(told) as file:
        answer = file.read()
    if answer.startswith("errno"):
        pytest.skip(f"no user namespace here: {answer}")
    assert answer == "65534 None"


def _way_in_a_namespace() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)
    if libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) != 0 or libc.unshare(_CLONE_NEWUSER) != 0:
        return f"errno {ctypes.get_errno()}"
    Path("/proc/self/uid_map").write_text("0 54321 1")
    return f"{os.stat('/usr').st_uid} {distrust_way('/usr/bin/place')}"


@root_only
def test_an_acl(place: Path) -> None:
    """An ACL's mask stands in the place of the group's bits, and may be for another user."""
    place.parent.chmod(0o775)
    assert distrust_way(str(place)) is None  # root's group is root's alone
    nobody = 0xFFFFFFFF
    entries = (
        (1, 7, nobody),
        (2, 7, STRANGER),
        (4, 5, nobody),
        (0x10, 7, nobody),
        (0x20, 5, nobody),
    )
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(place.parent, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error.strerror}")
    told = distrust_way(str(place))
    assert told is not None and str(place.parent) in told
