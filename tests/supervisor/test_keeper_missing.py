"""The keeper can't be launched, ends at once, or never gets ready: noticed at open."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import ShimError, ShimNotFound, _leash
from supervisor.directories._temporary import PLACE
from supervisor.native import find_binary
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.leaks import children

pytestmark = pytest.mark.runtimes("fake")


def _ends(path: Path) -> None:
    path.write_text("#!/bin/sh\nexit 1\n")


def _is_killed(path: Path) -> None:
    path.write_text("#!/bin/sh\nkill -9 $$\n")


def _tells_rubbish(path: Path) -> None:
    """Write to READY, the last of the four in the first word, and end."""
    path.write_text('#!/bin/sh\neval "echo rubbish >&${1##*:}"\n')


def _tells_a_pid_that_is_over(path: Path) -> None:
    """Report the pid of a process that has ended before the supervisor could look."""
    path.write_text('#!/bin/sh\ntrue & wait\neval "echo $! >&${1##*:}"\n')


@pytest.fixture
def place(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ephemeral roots lie."""
    path = workdir / "place"
    path.mkdir()
    monkeypatch.setenv(PLACE, str(path))
    return path


def _use(monkeypatch: pytest.MonkeyPatch, keeper: Path) -> None:
    def find(name: str) -> str:
        return str(keeper) if name == "supervisor-keeper" else find_binary(name)

    monkeypatch.setattr(_leash, "find_binary", find)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("spoil", [_ends, _is_killed, _tells_rubbish, _tells_a_pid_that_is_over])
async def test_one_that_has_gone(
    supervisor: OpenSupervisor,
    root: Path,
    place: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    durable: bool,
) -> None:
    """A keeper that has ended at once is noticed: once it died silently, and a killed program's
    containers ran for ever."""
    keeper = workdir / "keeper"
    spoil(keeper)
    keeper.chmod(0o755)
    _use(monkeypatch, keeper)
    before = children(os.getpid())
    with pytest.raises(ShimError, match="the keeper"):
        async with supervisor(root if durable else None, leash=True):
            raise AssertionError("it was opened")
    assert os.listdir(place) == [] and children(os.getpid()) == before


@pytest.mark.parametrize("mode", [None, 0o644])
async def test_one_that_cannot_be_launched(
    supervisor: OpenSupervisor,
    place: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int | None,
) -> None:
    """A keeper that can't be launched is named, and no root is left."""
    keeper = workdir / "keeper"
    if mode is not None:
        shutil.copy(find_binary("supervisor-keeper"), keeper)
        keeper.chmod(mode)
    _use(monkeypatch, keeper)
    with pytest.raises(ShimNotFound, match=str(keeper)):
        async with supervisor():
            raise AssertionError("it was opened")
    assert os.listdir(place) == []


async def test_one_that_is_killed_later(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    place: Path,
) -> None:
    """A living supervisor whose keeper was killed removes everything itself."""
    before = children(os.getpid())
    async with supervisor() as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        [keeper] = [pid for pid in set(children(os.getpid())) - set(before) if _is_keeper(pid)]
        os.kill(keeper, signal.SIGKILL)
    assert os.listdir(place) == [] and children(os.getpid()) == before


def _is_keeper(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("supervisor-keep")
