"""Places where nothing can be made: an error of ours names them, and nothing is left.

A read-only mount, /proc or a name that is too long raised bare OSErrors.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import Bundle, InvalidValue
from supervisor._leash import ephemeral_root
from supervisor.directories import _root, _temporary
from supervisor.directories._temporary import PLACE, Temporary
from supervisor.native import find_binary
from supervisor.values import DiskFull, InfrastructureError
from tests.conftest import OpenSupervisor
from tests.support.runtimes import needs_root

pytestmark = pytest.mark.runtimes("fake")

_MS_RDONLY, _MS_REMOUNT = 1, 32


@pytest.fixture
def read_only(workdir: Path) -> Iterator[Path]:
    """A read-only file system of our own, with a directory."""
    place = workdir / "read-only"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, b"size=64k,mode=711") != 0:
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    (place / "root").mkdir(mode=0o711)
    assert libc.mount(b"none", bytes(place), None, _MS_RDONLY | _MS_REMOUNT, None) == 0
    yield place
    assert libc.umount2(bytes(place), 2) == 0


# ---- roots ----------------------------------------------------------------------------------


async def _refused(supervisor: OpenSupervisor, root: Path | str, why: str) -> None:
    with pytest.raises(InvalidValue, match=why) as caught:
        async with supervisor(root):
            raise AssertionError("it was opened")
    assert str(root)[:200] in str(caught.value)  # of a long path only the beginning


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("/proc/x", "No such file"),
        ("/proc/a/b/c", "No such file"),
        ("/sys/x", "not permitted|denied"),
        ("/dev/null", "not a directory"),
        ("/etc/passwd/x/y", "not a directory"),
        ("/tmp/" + 300 * "n", "name too long"),
        ("/tmp" + 2100 * "/n", "name too long"),
    ],
    ids=lambda value: value[:20],
)
async def test_roots_where_none_can_be(supervisor: OpenSupervisor, root: str, why: str) -> None:
    """The error for a root where none can be names the root, and the reason."""
    await _refused(supervisor, root, why)


@needs_root
async def test_roots_on_a_read_only_mount(supervisor: OpenSupervisor, read_only: Path) -> None:
    """A root on a read-only mount raises an error of ours, whether the root exists or not."""
    await _refused(supervisor, read_only / "root", "its file system is read-only")
    await _refused(supervisor, read_only / "a/b", "Read-only file system")


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOSPC])
async def test_whose_fault(
    supervisor: OpenSupervisor, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A bad disk and a full one are faults of the machine."""
    wanted = {errno.EIO: InfrastructureError, errno.EACCES: InvalidValue, errno.ENOSPC: DiskFull}

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(root))

    monkeypatch.setattr(_root, "_check_runtime_root", fail)
    with pytest.raises(wanted[number], match=str(root)):
        async with supervisor(root):
            raise AssertionError("it was opened")


async def test_a_root_that_can_not_be_written(
    supervisor: OpenSupervisor, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error for a root that can't be written names the mode, and a remedy."""
    root.mkdir(mode=0o500)
    access: Callable[..., bool] = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: path != "." and access(path, mode, **how)
    )
    await _refused(supervisor, root, r"can't be written \(mode 0500\): use chmod u\+rwx")


# ---- temporary directories ------------------------------------------------------------------


async def _both_refused(
    supervisor: OpenSupervisor, rootfs: Path, monkeypatch: pytest.MonkeyPatch, place: str, why: str
) -> None:
    monkeypatch.setenv(PLACE, place)
    with pytest.raises(InvalidValue, match=f"{PLACE}: .*{place}.*({why})"):
        Bundle.from_rootfs(rootfs, ["true"])
    with pytest.raises(InvalidValue, match=f"{PLACE}: .*{place}.*({why})"):
        async with supervisor():
            raise AssertionError("it was opened")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/proc", "No such file"),
        ("/sys", "not permitted|denied"),
        ("/nowhere", "no absolute path of a directory"),
        ("/etc/passwd", "no absolute path of a directory"),
    ],
)
async def test_places_where_none_can_be_made(
    supervisor: OpenSupervisor,
    rootfs: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    why: str,
) -> None:
    """The error for a place where nothing can be made names the variable, the place and the reason:
    for bundles and for ephemeral roots."""
    await _both_refused(supervisor, rootfs, monkeypatch, place, why)


@needs_root
async def test_a_read_only_place(
    supervisor: OpenSupervisor, rootfs: Path, monkeypatch: pytest.MonkeyPatch, read_only: Path
) -> None:
    """The same holds on a read-only mount."""
    await _both_refused(supervisor, rootfs, monkeypatch, str(read_only), "Read-only file system")


async def test_a_place_that_nobody_has_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a named place the fault is the machine's, and the error recommends the variable."""
    monkeypatch.delenv(PLACE)
    monkeypatch.setattr(_temporary, "places", lambda: [str(workdir / "gone")])
    with pytest.raises(InfrastructureError, match=f"{workdir}/gone: No such file.*{PLACE}"):
        Temporary.make()
    with pytest.raises(InfrastructureError, match=f"{workdir}/gone: No such file.*{PLACE}"):
        async with ephemeral_root():
            raise AssertionError("it was made")


# ---- what the keeper makes ------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["flock:error=EIO", "fchmod:error=EIO", "openat,open:error=EACCES"]
)
def test_a_root_that_the_keeper_can_not_use(workdir: Path, fault: str) -> None:
    """A keeper that can't use its root removes what it has made, and reports why it gives up."""
    if shutil.which("strace") is None:
        pytest.skip("strace is needed (apt-get install strace)")
    keeper = find_binary("supervisor-keeper")
    directory = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    pidfd = os.pidfd_open(os.getpid())
    leash, life = os.pipe(), os.pipe()
    given = (leash[0], pidfd, directory, life[1])
    names = fault.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names},mkdirat"]
    try:
        subprocess.run(
            [
                *command,
                "-e",
                f"inject={fault}",
                keeper,
                ":".join(map(str, given)),
                str(workdir / "made"),
                "make-root",
            ],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
        os.close(life[1])
        told = os.read(life[0], 64)
    finally:
        for fd in (leash[0], leash[1], pidfd, directory, life[0]):
            os.close(fd)
    assert int(told) in (-errno.EIO, -errno.EACCES)
    assert os.listdir(workdir) == []
