"""What the long searches share: the place and the programs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import Bundle
from supervisor.testing.machine._cradle import Cradle
from tests.crashes.ground import Ground, Starved
from tests.support.containers import kernel_tells
from tests.support.runtimes import Choice

_DISK = b"size=4m,nr_inodes=600,mode=711"


@pytest.fixture(scope="session")
def subject_root() -> Iterator[Path]:
    """A root filesystem with nothing but the subject inside."""
    compiler = shutil.which("musl-gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (apt-get install gcc libc6-dev)")
    path = Path(tempfile.mkdtemp(prefix="ts-subject-"))
    path.chmod(0o755)
    for name in ("bin", "proc", "dev", "sys", "tmp", "run"):
        (path / name).mkdir()
    source = Path(__file__).with_name("subject.c")
    command = [compiler, "-static", "-O1", "-o", str(path / "bin/subject"), str(source)]
    subprocess.run(command, check=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def disk(workdir: Path) -> Iterator[Path | None]:
    """A small file system for one test; None for a user who can't mount one."""
    place = workdir / "disk"
    place.mkdir(mode=0o711)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, _DISK) != 0:
        yield None
        return
    yield place
    assert libc.umount2(bytes(place), 2) == 0


@pytest.fixture
def setting(
    choice: Choice, workdir: Path, disk: Path | None, subject_root: Path, cgroup_parent: str
) -> Iterator[Ground]:
    """Where the machine plays."""
    subject = "/bin/subject" if choice.real else str(subject_root / "bin/subject")
    bundle = Bundle.from_rootfs(subject_root, [subject], path=workdir / "bundle")
    with Cradle() as cradle:
        yield Ground(
            cradle=cradle,
            runtime=choice.runtime(),
            namespaces=choice.real,
            kernel_tells=trio.run(_kernel_tells),
            workdir=workdir,
            place=workdir if disk is None else disk,
            is_disk=disk is not None,
            bundle=bundle.path,
            subject=subject,
            cgroup_parent=cgroup_parent,
            actor=Starved,
        )


async def _kernel_tells() -> bool:
    return kernel_tells()
