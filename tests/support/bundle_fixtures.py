"""The fixtures for bundles, and a check that no temporary bundle is left.

They stand in for fixtures of the same names in ``tests/conftest.py``. So only the folders whose
conftest imports them have them.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.directories._temporary import PLACE
from supervisor.runtime._runtime import why_not
from supervisor.spec._init import is_static
from tests.support.bundle_making import Maker
from tests.support.bundle_running import Runner, make_rootfs, open_directory

__all__ = [
    "as_root",
    "as_somebody",
    "bundle",
    "busybox",
    "make",
    "rootfs",
    "runner",
    "runtime",
    "temporary",
]


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root filesystem with two users."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:\nweb:x:33:44::/:\nodd\nbad:x:y:z::/:\n")
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory with an empty root filesystem and no config.json yet."""
    (tmp_path / "rootfs").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary bundles go; none may be left when a test has ended."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv(PLACE, str(directory))
    yield directory
    if os.listdir(directory):
        gc.collect()
    assert os.listdir(directory) == []


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bundles as root does, whatever user runs the test."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bundles as an ordinary user without subordinate ids."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 567)
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture(params=["rootfs", "host"])
def make(request: pytest.FixtureRequest, rootfs: Path) -> Maker:
    """Make a bundle either way."""
    if request.param == "host":
        return lambda **keywords: Bundle.from_host(["sh"], **keywords)
    return lambda **keywords: Bundle.from_rootfs(rootfs, ["sh"], **keywords)


# ---- with a real runtime --------------------------------------------------------------


@pytest.fixture(scope="session")
def busybox() -> Iterator[Path]:
    """A root filesystem for containers; a test must not change the files."""
    program = shutil.which("busybox")
    if program is None or not is_static(program):
        pytest.skip("no static busybox here: install busybox-static")
    with open_directory() as directory:
        make_rootfs(directory / "busybox", program)
        yield directory / "busybox"


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """The runtimes that are installed and can run here."""
    name: str = request.param
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    obstacle = why_not(name)
    if obstacle is not None:
        pytest.skip(f"{name} can't run here: it {obstacle}")
    return path


@pytest.fixture
def runner(runtime: str) -> Iterator[Runner]:
    """Runs bundles as the user who runs the tests."""
    with open_directory() as directory:
        runner = Runner(runtime, directory)
        yield runner
        runner.remove_cgroups()
