"""Sealed copies of runtimes: made where they help, equal to the program, and never left open."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.children._pidfd import PidFd
from supervisor.native import find_binary
from supervisor.runtime import ContainerRuntime, Head, SealedPrograms

ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="ordinary users run the file")


@pytest.fixture
def programs() -> Iterator[SealedPrograms]:
    """Return the copies of one supervisor."""
    programs = SealedPrograms()
    yield programs
    programs.close()


@pytest.fixture
def crun(tmp_path: Path) -> str:
    """Return a program that is only called crun."""
    return str(shutil.copy("/usr/bin/readlink", tmp_path / "crun"))


def test_a_copy_is_the_same_and_sealed(programs: SealedPrograms, crun: str) -> None:
    """A copy equals the program and can't be changed, as runtimes require."""
    fd = programs.open(crun)
    assert fd is not None
    assert fd > 2
    assert os.pread(fd, 1 << 30, 0) == Path(crun).read_bytes()
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == ALL_SEALS
    assert not os.get_inheritable(fd)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")


def test_a_copy_is_made_once(programs: SealedPrograms, crun: str) -> None:
    """A copy is kept while the file is unchanged."""
    assert programs.open(crun) == programs.open(crun)


def test_a_replaced_program_is_copied_again(programs: SealedPrograms, crun: str) -> None:
    """A program that is replaced while we run is copied again for the next call."""
    programs.open(crun)
    os.unlink(crun)
    shutil.copy("/bin/true", crun)
    fd = programs.open(crun)
    assert fd is not None
    assert os.pread(fd, 1 << 30, 0) == Path("/bin/true").read_bytes()


@pytest.mark.parametrize("sealed", [True, False])
def test_what_runs(programs: SealedPrograms, crun: str, tmp_path: Path, sealed: bool) -> None:
    """The copy runs under the same name, and the program itself reports its own file."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = PidFd.spawn(
            [crun, "/proc/self/exe"],
            output=file.fileno(),
            program=programs.open(crun) if sealed else None,
        )
    os.waitpid(process.pid, 0)
    os.close(process.fd)
    assert output.read_text().strip() == ("/memfd:crun (deleted)" if sealed else crun)


@pytest.mark.parametrize("name", ["runc", "runsc", "youki", "crun.sh"])
def test_others_run_from_their_files(
    programs: SealedPrograms, crun: str, tmp_path: Path, name: str
) -> None:
    """Other runtimes run from their files: they may need these, as runsc does, or gain nothing by a
    copy, as runc."""
    path = tmp_path / name
    os.rename(crun, path)
    assert programs.open(str(path)) is None


def test_a_script_runs_from_its_file(programs: SealedPrograms, tmp_path: Path) -> None:
    """A script runs from its file: the interpreter couldn't open a descriptor that is closed on
    exec."""
    script = tmp_path / "crun"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert programs.open(str(script)) is None


def test_a_missing_program_is_for_the_caller(programs: SealedPrograms, tmp_path: Path) -> None:
    """A missing program is reported by the code that runs it."""
    assert programs.open(str(tmp_path / "crun")) is None


def test_closed_copies_are_closed(crun: str) -> None:
    """Closed copies leave no descriptor open."""
    before = os.listdir("/proc/self/fd")
    programs = SealedPrograms()
    programs.open(crun)
    programs.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("tethered", [False, True])
async def test_the_state_is_asked_of_a_copy(
    programs: SealedPrograms, tmp_path: Path, tethered: bool
) -> None:
    """`state` runs from a copy, as start and delete do; once crun copied itself for each call."""
    crun = str(shutil.copy(os.path.realpath("/bin/sh"), tmp_path / "crun"))
    script = """printf '{"status": "%s"}' "$(readlink /proc/$$/exe)" """
    head = Head(
        path=crun,
        args=("-c", script),
        root=str(tmp_path),
        container="a",
        programs=programs,
        tether=find_binary("supervisor-tether") if tethered else None,
    )
    told = await ContainerRuntime(head=head).status()
    assert told is not None and told.startswith("/memfd:crun")
    assert await ContainerRuntime(head=attrs.evolve(head, programs=None)).status() == crun
