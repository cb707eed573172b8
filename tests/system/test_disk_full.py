"""The disk is full: the operation undoes its work, and no exit is lost."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import pytest

from supervisor import (
    PIPE,
    Container,
    DiskFull,
    InfrastructureError,
    Runtime,
    RuntimeFailed,
    Source,
    State,
    SupervisorError,
    open_supervisor,
)
from supervisor.directories._temporary import PLACE
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import left, reap, shim_of

pytestmark = pytest.mark.runtimes("fake", "runc")

_PAGE = 4096
_PAGES, _INODES = 64, 120


@attrs.frozen
class Disk:
    """A tiny file system, which a test fills.

    Attributes:
        path: the mount point.
    """

    path: Path

    def fill(self, *, pages: int | None = None, inodes: int | None = None) -> None:
        """Leave so many pages, or names for files, and no more; None changes nothing."""
        if pages is not None:
            free = os.statvfs(self.path).f_bavail - pages
            assert free >= 0
            with open(self.path / ".ballast", "ab") as file:
                file.write(bytes(_PAGE * free))
        if inodes is not None:
            for n in range(os.statvfs(self.path).f_ffree - inodes):
                (self.path / f".ballast-{n}").touch()

    def free(self) -> None:
        """Make room again."""
        for file in self.path.glob(".ballast*"):
            file.unlink()


@pytest.fixture
def root(workdir: Path) -> Path:
    """A root on the tiny file system."""
    return workdir / "disk" / "root"


@pytest.fixture
def disk(workdir: Path, root: Path) -> Iterator[Disk]:
    """The tiny file system, with the root inside."""
    place = workdir / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={_PAGES * _PAGE},nr_inodes={_INODES},mode=711".encode()
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, options) != 0:
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    root.mkdir(mode=0o711)
    yield Disk(place)
    assert libc.umount2(bytes(place), 2) == 0


def _elsewhere(runtime: Runtime, workdir: Path) -> Runtime:
    """Return the same runtime, with the runtime's files on a disk that isn't full."""
    return attrs.evolve(runtime, root=str(workdir / "runtime-root"))


Fill = Callable[[Disk, int], None]
scarce = pytest.mark.parametrize(
    "fill",
    [
        lambda disk, n: disk.fill(pages=n),
        lambda disk, n: disk.fill(inodes=n),
    ],
    ids=["pages", "inodes"],
)


async def _at_every_level(
    disk: Disk, fill: Fill, attempt: Callable[[], Awaitable[bool]]
) -> list[type[BaseException]]:
    """Call ``attempt`` with more and more room until success; return the earlier failures."""
    failures: list[type[BaseException]] = []
    for level in range(_PAGES):
        fill(disk, level)
        try:
            done = await attempt()
        except (SupervisorError, OSError) as error:
            assert isinstance(error, SupervisorError), f"{error!r} isn't ours"
            if isinstance(error, DiskFull):
                assert isinstance(error, InfrastructureError) and isinstance(error, OSError)
                assert error.errno is not None
                # The error names the container and the disk.
                assert error.container == "a" and str(disk.path) in str(error), str(error)
            failures.append(type(error))
            done = False
        disk.free()
        if done:
            return failures
    raise AssertionError("it never succeeded")


@scarce
async def test_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    runtime: Runtime,
    workdir: Path,
    disk: Disk,
    fill: Fill,
    nothing_left: NothingLeft,
) -> None:
    """With however little room, create either works or leaves nothing: not even a broken one."""
    async with supervisor(root, runtime=_elsewhere(runtime, workdir)) as sup:
        spec = bundle("sleep", "60")

        async def attempt() -> bool:
            try:
                a = await sup.create("a", spec)
            except BaseException:
                assert dict(sup.broken) == {} and left(root) == []
                raise
            await a.delete()
            return True

        failures = await _at_every_level(disk, fill, attempt)
        assert failures[:3] == [DiskFull] * 3
        assert set(failures) <= {DiskFull, RuntimeFailed}  # the pid file is the runtime's to write
        await nothing_left()


@pytest.mark.runtimes("fake", "runc", "crun")
async def test_create_with_the_runtime_there_too(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    disk: Disk,
    nothing_left: NothingLeft,
) -> None:
    """A runtime with files on the full disk fails too, and the create is undone."""
    async with supervisor(root) as sup:
        spec = bundle("sleep", "60")

        async def attempt() -> bool:
            try:
                a = await sup.create("a", spec)
            except BaseException:
                assert dict(sup.broken) == {} and left(root) == []
                raise
            await a.delete()
            return True

        failures = await _at_every_level(disk, lambda d, n: d.fill(pages=n), attempt)
        assert set(failures) == {DiskFull, RuntimeFailed}
        await nothing_left()


@scarce
async def test_exec(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    runtime: Runtime,
    workdir: Path,
    disk: Disk,
    fill: Fill,
) -> None:
    """With however little room, exec either works or leaves nothing, and the container runs on."""
    async with (
        supervisor(root, runtime=_elsewhere(runtime, workdir)) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        before = sorted(os.listdir(root / "a"))

        async def attempt() -> bool:
            try:
                job = await a.exec(["sh", "-c", "exit 9"], id="job", stdout=PIPE)
            except BaseException:
                assert sorted(os.listdir(root / "a")) == before and list(a.processes) == ["init"]
                raise
            assert job.stdout is not None
            async with job.stdout:
                assert (await job.wait()).code == 9
            return True

        failures = await _at_every_level(disk, fill, attempt)
        assert failures[0] is DiskFull and set(failures) <= {DiskFull, RuntimeFailed}
        assert (a.state, a.status) == (State.RUNNING, None)


@scarce
async def test_start(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    runtime: Runtime,
    workdir: Path,
    disk: Disk,
    fill: Fill,
) -> None:
    """A container can be started while the disk is full, and the next supervisor knows the
    state."""
    async with supervisor(root, runtime=_elsewhere(runtime, workdir)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        fill(disk, 0)
        await a.start()
        assert a.state is State.RUNNING
    async with supervisor(root) as sup:
        assert sup["a"].state is State.RUNNING
        stopped = await sup["a"].stop(grace=0)
        assert stopped.status.signal in (signal.SIGTERM, signal.SIGKILL)
        await sup["a"].delete()
        assert not (root / "a").exists()


@scarce
@pytest.mark.parametrize("watched", [True, False], ids=["supervised", "unsupervised"])
async def test_exit(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    runtime: Runtime,
    workdir: Path,
    disk: Disk,
    fill: Fill,
    watched: bool,
) -> None:
    """An exit while the disk is full isn't lost, neither now nor for a later supervisor."""

    async def check(a: Container) -> None:
        status = await a.wait()
        assert (status.code, status.source) == (23, Source.SHIM)

    async with supervisor(root, runtime=_elsewhere(runtime, workdir)) as sup:
        a = await sup.create("a", bundle("sh", "-c", "read x; exit 23"), stdin=PIPE)
        await a.start()
        shim = shim_of(root / "a/init")
        fill(disk, 0)
        if watched:
            assert a.stdin is not None
            await a.stdin.send_all(b"\n")
            await check(a)
    if not watched:
        (root / "a/init/stdin").write_bytes(b"\n")
        await reap(shim)
    async with supervisor(root) as sup:  # opening works on a full disk
        await check(sup["a"])
    disk.free()
    async with supervisor(root) as sup:
        await check(sup["a"])
        await sup["a"].delete()


@scarce
async def test_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    runtime: Runtime,
    workdir: Path,
    disk: Disk,
    fill: Fill,
    nothing_left: NothingLeft,
) -> None:
    """A full disk doesn't prevent a delete, which makes room."""
    async with supervisor(root, runtime=_elsewhere(runtime, workdir)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        fill(disk, 0)
        await a.delete(force=True)
        assert a.state is State.DELETED
        await nothing_left()


async def test_open(choice: object, runtime: Runtime, root: Path, disk: Disk) -> None:
    """A root that can't be made for want of room is DiskFull."""
    disk.fill(inodes=0)
    with pytest.raises(DiskFull):
        async with open_supervisor(root / "deeper", runtime=runtime):
            raise AssertionError("it was opened")


async def test_ephemeral(
    bundle: MakeBundle,
    runtime: Runtime,
    cgroup_parent: str,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An ephemeral supervisor on a full disk raises DiskFull; on a tiny disk a failed create is
    undone."""
    monkeypatch.setenv(PLACE, str(disk.path))
    disk.fill(inodes=0)
    with pytest.raises(DiskFull):
        async with open_supervisor(runtime=runtime, cgroup_parent=cgroup_parent):
            raise AssertionError("it was opened")
    disk.free()
    async with open_supervisor(runtime=runtime, cgroup_parent=cgroup_parent) as sup:
        for pages in range(4):
            disk.fill(pages=pages)
            with pytest.raises(DiskFull):
                await sup.create("a", bundle("true"))
            assert left(Path(sup.root)) == []
            disk.free()
