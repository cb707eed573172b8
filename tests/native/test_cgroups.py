"""The cgroups that a shim goes into, and the processes that go with the shim."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from supervisor.cgroups import Hierarchies
from tests.native.rig import SLEEP, Rig, runtime
from tests.support.leaks import wait_for

OPTIONS = ("--cgroup", "--own-cgroup")


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """The directories of a new cgroup in every hierarchy; ask for this fixture before the shim's
    rig."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    name = f"/ts-test-{os.getpid()}-{secrets.token_hex(4)}"
    # No process can be in a new cpuset that has no processors.
    directories = [Path(path) for path in hierarchies.directories(name) if "cpuset" not in path]
    for path in directories:
        path.mkdir()
    yield directories
    for path in directories:
        for group in (path / "gone", path):
            if group.exists():
                wait_for(lambda group=group: not members(group), "the end of all that was in it")
                group.rmdir()


def members(group: Path) -> set[int]:
    return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}


def words(option: str, groups: Sequence[Path]) -> list[str]:
    return [word for group in groups for word in (option, str(group / "cgroup.procs"))]


@pytest.mark.parametrize("programs", ["release"], indirect=True)
@pytest.mark.parametrize("option", OPTIONS)
def test_who_is_in_it(groups: list[Path], rig: Rig, option: str) -> None:
    """With the one option the runtime and the process are too, with the other only the shim."""
    rig.launch(runtime(*SLEEP), *words(option, groups))
    process = rig.running()
    wait_for(lambda: all(rig.pid in members(group) for group in groups), "the shim's arrival")
    for group in groups:
        assert (process in members(group)) is (option == "--cgroup")


@pytest.mark.parametrize("programs", ["release"], indirect=True)
@pytest.mark.parametrize("option", OPTIONS)
def test_who_copies_for_it(groups: list[Path], rig: Rig, option: str, tmp_path: Path) -> None:
    """A copier between the caller's files and the process is in the cgroup, with both options."""
    fd = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT, 0o600)
    rig.adopt(fd)
    rig.launch(runtime(*SLEEP), *words(option, groups), "--stdout", rig.given("stdout", fd))
    process = rig.running()
    children = Path(f"/proc/{rig.pid}/task/{rig.pid}/children").read_text().split()
    (copier,) = {int(pid) for pid in children} - {process}
    for group in groups:
        assert copier in members(group)


@pytest.mark.parametrize("option", OPTIONS)
def test_one_that_has_gone(groups: list[Path], rig: Rig, option: str) -> None:
    """The shim makes the cgroup again that a closed supervisor has removed."""
    gone = [group / "gone" for group in groups]
    rig.launch(runtime(*SLEEP), *words(option, gone))
    rig.running()
    wait_for(lambda: all(rig.pid in members(group) for group in gone), "the shim's arrival")


@pytest.mark.parametrize("option", OPTIONS)
def test_one_that_can_not_be_entered(rig: Rig, tmp_path: Path, option: str) -> None:
    """The container is made all the same, and the shim's log says what couldn't be."""
    (tmp_path / "cgroup.procs").mkdir()
    rig.launch(runtime(*SLEEP), *words(option, [tmp_path]))
    rig.running()
    (line,) = rig.log()
    assert line["level"] == "warning"
    assert str(tmp_path / "cgroup.procs") in line["msg"]
