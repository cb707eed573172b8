"""The shim is missing, or is no shim."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import ShimError, ShimExited, ShimNotFound, State
from supervisor.native import find_binary
from supervisor.runtime import Call, Head, run
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor

pytestmark = pytest.mark.runtimes("fake")


def _remove(shim: Path) -> None:
    shim.unlink()


def _forbid(shim: Path) -> None:
    shim.chmod(0o644)


def _spoil(shim: Path) -> None:
    shim.unlink()
    shim.write_bytes(b"this is no program\n")
    shim.chmod(0o755)


def _replace_by_directory(shim: Path) -> None:
    shim.unlink()
    shim.mkdir()


Damage = Callable[[Path], None]
damages = pytest.mark.parametrize("damage", [_remove, _forbid, _spoil, _replace_by_directory])


@pytest.fixture
def shim(workdir: Path) -> Path:
    """A shim of the test's own."""
    return Path(shutil.copy(find_binary("supervisor-shim"), workdir / "a-shim"))


@pytest.mark.parametrize("damage", [_remove, _forbid, _replace_by_directory])
async def test_at_open(supervisor: OpenSupervisor, shim: Path, root: Path, damage: Damage) -> None:
    """A shim that is missing or can't be executed is named, and not even the root is made."""
    damage(shim)
    with pytest.raises(ShimNotFound) as caught:
        async with supervisor(root, shim=shim):
            raise AssertionError("it was opened")
    assert caught.value.path == str(shim) and str(shim) in str(caught.value)
    assert not root.exists()


@damages
async def test_at_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    shim: Path,
    root: Path,
    damage: Damage,
    nothing_left: NothingLeft,
) -> None:
    """A shim that goes away while we are open is named by create, which leaves nothing."""
    async with supervisor(root, shim=shim) as sup:
        damage(shim)
        with pytest.raises(ShimNotFound) as caught:
            await sup.create("a", bundle("sleep", "60"))
        assert caught.value.path == str(shim) and str(shim) in str(caught.value)
        assert "a" not in sup and "a" not in sup.broken
        await nothing_left()


@damages
async def test_at_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, shim: Path, root: Path, damage: Damage
) -> None:
    """The error names a shim that is gone at an exec; nothing of the exec is left, and the
    container runs."""
    async with supervisor(root, shim=shim) as sup, await sup.create("a", bundle("sleep", "9")) as a:
        await a.start()
        damage(shim)
        with pytest.raises(ShimNotFound) as caught:
            await a.exec(["true"], id="job")
        assert caught.value.path == str(shim)
        assert not (root / "a/job").exists() and list(a.processes) == ["init"]
        assert (a.state, a.status) == (State.RUNNING, None)


@pytest.mark.parametrize("program", ["true", "echo"])
async def test_no_shim_at_all(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    program: str,
    nothing_left: NothingLeft,
) -> None:
    """Another program in the shim's place, which says nothing or rubbish, is a shim that exited."""
    async with supervisor(root, shim=shutil.which(program)) as sup:
        with pytest.raises(ShimExited, match="before its report") as caught:
            await sup.create("a", bundle("sleep", "60"))
        assert isinstance(caught.value, ShimError) and caught.value.container == "a"
        await nothing_left()


@damages
async def test_a_tether(workdir: Path, damage: Damage) -> None:
    """A tether that is gone at a call is named, not the runtime, and nothing is run."""
    tether = Path(shutil.copy(find_binary("supervisor-tether"), workdir / "a-tether"))
    damage(tether)
    ran = workdir / "ran"
    args = ("-c", f"touch {ran}")
    head = Head(path="/bin/sh", args=args, root="x", container="x", tether=str(tether))
    with pytest.raises(ShimNotFound, match="reinstall") as caught:
        await run(Call(head=head, verb="ran"), seconds=60)
    assert caught.value.path == str(tether) and str(tether) in str(caught.value)
    assert not ran.exists()
