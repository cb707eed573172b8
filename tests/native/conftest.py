"""Fixtures: the programs, shims and leashes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.native.keeper import KeeperRig
from tests.native.leash import Leash
from tests.native.programs import Programs, sanitized, shipped
from tests.native.rig import Rig


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Programs]:
    """Return a build by name; each build is made once."""

    @functools.cache
    def get(name: str) -> Programs:
        return shipped() if name == "release" else sanitized(tmp_path_factory.mktemp(name))

    return get


@pytest.fixture(params=["release", "sanitized"])
def programs(
    request: pytest.FixtureRequest, builds: Callable[[str], Programs]
) -> Iterator[Programs]:
    """The programs: tests run with both builds, unless they name one."""
    chosen = builds(request.param)
    yield chosen
    said = chosen.complaints()
    assert not said, "\n".join(said)


@pytest.fixture
def rig(programs: Programs, tmp_path: Path) -> Iterator[Rig]:
    """A process directory and the shim that a test launches there."""
    rig = Rig(programs, tmp_path / "process")
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def leash() -> Iterator[Leash]:
    """A leash whose supervisor is a process that does nothing."""
    leash = Leash()
    try:
        yield leash
    finally:
        leash.close()


@pytest.fixture
def keeper(programs: Programs, tmp_path: Path, leash: Leash) -> Iterator[KeeperRig]:
    """A root and the keeper that a test launches for the root."""
    keeper = KeeperRig(programs, tmp_path / "root", leash)
    try:
        yield keeper
    finally:
        keeper.close()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in the test's own directory."""
    monkeypatch.chdir(tmp_path)
