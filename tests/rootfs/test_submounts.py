"""What is mounted inside of a root filesystem, or of what is shown of the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle
from supervisor.bundle._content import Content
from supervisor.rootfs._submounts import MountTable, seal_submounts
from supervisor.spec import Mount
from tests.support.bundle_running import Runner, open_directory
from tests.support.users import own_mounts

LINE = "30 20 0:30 / {} rw - tmpfs t rw\n"
RO = ["rbind", "rro"]
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000


def sealed(tmp_path: Path, points: list[str], **spec: Any) -> list[dict[str, Any]]:
    """Return the mounts of a spec when these are in the table."""
    table = tmp_path / "mountinfo"
    table.write_text("".join(LINE.format(point) for point in points))
    root = {"path": str(tmp_path / "root"), "readonly": True}
    with contextlib.closing(MountTable(str(table))) as read:
        found = seal_submounts({"root": root, **spec}, read)
    mounts: list[dict[str, Any]] = found.get("mounts", [])
    return mounts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in ("a/b", "ab", "c d\\e", "dev/pts"):
        (path / name).mkdir(parents=True)
    (path / "file").touch()
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which `mount` may be used: only we see the mounts."""
    if os.geteuid() != 0 or not own_mounts():
        pytest.skip("only root, in a mount namespace of its own (scripts/test), may mount here")
    with open_directory() as directory:
        try:
            yield directory
        finally:
            with open("/proc/self/mountinfo") as file:
                points = [line.split()[4] for line in file]
            for point in reversed(points):
                if point.startswith(f"{directory}/"):
                    subprocess.run(["umount", "--lazy", point], check=True)


def mount(path: Path) -> None:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "t", path], check=True)


def test_which_are_sealed(root: Path, tmp_path: Path) -> None:
    """Only the topmost mounts below the root are sealed, escaped or not; none outside, and none
    that is covered."""
    points = [
        str(root),
        f"{root}ed/a",
        f"{root}/a/b",
        f"{root}/a",
        f"{root}/ab",
        f"{root}/c\\040d\\134e",
        f"{root}/dev",
        f"{root}/dev/pts",
        f"{root}/file",
        f"{root}/gone",
        "/elsewhere",
    ]
    dev = {"destination": "/dev", "type": "tmpfs"}
    found = sealed(tmp_path, points, mounts=[dev])
    assert found[-1] is dev
    assert {one["destination"]: one["options"] for one in found[:-1]} == {
        "/a": RO,
        "/ab": RO,
        "/c d\\e": RO,
        "/file": ["bind", "ro"],
    }
    assert all(one["source"] == str(root) + one["destination"] for one in found[:-1])


def test_a_root_behind_a_link(root: Path, tmp_path: Path) -> None:
    """The table has real paths, and a root that is reached by a link is found in the table."""
    (tmp_path / "link").symlink_to("root")
    table = tmp_path / "mountinfo"
    table.write_text(LINE.format(f"{root}/a"))
    spec = {"root": {"path": "link", "readonly": True}, "process": {}, "linux": {}}
    content = Content(str(tmp_path), spec)
    with contextlib.closing(MountTable(str(table))) as read:
        derived = content.derive(cgroup=None, directory="/own", mounts=read)
    assert derived["mounts"][0]["destination"] == "/a"


def test_a_writable_root(root: Path, tmp_path: Path) -> None:
    """Where the root is writable, so are the mounts inside."""
    writable = {"path": str(root), "readonly": False}
    assert sealed(tmp_path, [f"{root}/a"], root=writable) == []


def test_the_table_is_read_again_when_it_has_changed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New mounts and unmounts are seen at once; otherwise the table isn't read again."""
    reads: list[str] = []
    real = os.open

    def noted(path: str, flags: int) -> int:
        reads.append(path)
        return real(path, flags)

    with monkeypatch.context() as patched, contextlib.closing(MountTable()) as table:
        patched.setattr(os, "open", noted)
        point = os.fsencode(place / "made")
        assert point not in table.read()
        mount(place / "made")
        assert point in table.read()
        assert table.read() == table.read()
        subprocess.run(["umount", place / "made"], check=True)
        assert point not in table.read()
        table.read()
    assert len([path for path in reads if path.endswith("mountinfo")]) == 3


def test_the_table_of_another_namespace(place: Path) -> None:
    """A thread in a namespace of its own gets that namespace's table."""
    point = os.fsencode(place / "made")
    seen: list[bool] = []

    def elsewhere() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_FS | _CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"t", os.fsencode(place), b"tmpfs", 0, None) == 0
        (place / "made").mkdir()
        assert libc.mount(b"t", point, b"tmpfs", 0, None) == 0
        seen.append(point in table.read())

    with contextlib.closing(MountTable()) as table:
        assert point not in table.read()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen == [True]
        assert point not in table.read()


# ---- with a real runtime --------------------------------------------------------------


def test_nothing_in_a_read_only_root_is_written(runner: Runner, busybox: Path, place: Path) -> None:
    """A file system mounted in a read-only root is read-only too: once it was writable, and its
    changes stayed."""
    image = place / "image"
    subprocess.run(["cp", "-a", str(busybox), str(image)], check=True)
    mount(image / "data")
    mount(image / "data/deeper")
    script = "for d in /data /data/deeper; do touch $d/made; echo $?; done"
    made = Bundle.from_rootfs(image, ["sh", "-c", script], path=place / "bundle")
    assert runner.output(made) == "1\n1\n"
    assert runner.output(Bundle.load(made.path)) == "1\n1\n"
    writable = Bundle.from_rootfs(image, ["sh", "-c", script], writable="direct")
    assert runner.output(writable) == "0\n0\n"


@pytest.mark.parametrize("read_only", [True, False])
def test_a_mount_holds_all_the_way_down(
    runner: Runner, busybox: Path, place: Path, read_only: bool
) -> None:
    """What is mounted inside of a `Mount` has the mount's options too: neither device nor setuid
    file."""
    mount(place / "data")
    mount(place / "data/in")
    subprocess.run(["mknod", place / "data/in/zero", "c", "1", "5"], check=True)
    script = (
        "grep ' /m' /proc/self/mountinfo | cut -d' ' -f 5,6; touch /m/in/made; echo $?;"
        " head -c 1 /m/in/zero | wc -c"
    )
    shown = Mount(place / "data", "/m", read_only=read_only)
    done = runner.output(
        Bundle.from_rootfs(busybox, ["sh", "-c", script], mounts=[shown])
    ).splitlines()
    for line, point in zip(done, ("/m", "/m/in"), strict=False):
        where, options = line.split()
        assert where == point
        assert {"nosuid", "nodev", "ro" if read_only else "rw"} <= set(options.split(","))
    assert done[2:] == ["1" if read_only else "0", "0"]
