"""The runtime is missing, goes away, or is no program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import CleanupIncomplete, Deadlines, Runtime, RuntimeNotFound, State
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import movable
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


def _remove(runtime: Path) -> None:
    runtime.unlink()


def _forbid(runtime: Path) -> None:
    runtime.unlink()
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o644)


def _spoil(runtime: Path) -> None:
    runtime.unlink()
    runtime.write_bytes(b"this is no program\n")
    runtime.chmod(0o755)


Damage = Callable[[Path], None]
damages = pytest.mark.parametrize("damage", [_remove, _forbid, _spoil])


@pytest.fixture
def program(choice: Choice, workdir: Path) -> Path:
    """The runtime, at a path from which a test can remove it."""
    return movable(choice, workdir / "a-runtime")


@pytest.mark.parametrize("name", ["no-such-runtime", "/nowhere/runtime"])
async def test_unknown_at_open(supervisor: OpenSupervisor, root: Path, name: str) -> None:
    """An open with a missing runtime names it, with how to install it, and makes nothing."""
    with pytest.raises(RuntimeNotFound, match="install it") as caught:
        async with supervisor(root, runtime=name):
            raise AssertionError("it was opened")
    assert caught.value.name == name and name in str(caught.value)
    assert not root.exists()


async def test_forbidden_at_open(supervisor: OpenSupervisor, root: Path, program: Path) -> None:
    """An open with a runtime that isn't executable names it, with a remedy, and makes nothing."""
    _forbid(program)
    with pytest.raises(RuntimeNotFound, match=r"chmod \+x") as caught:
        async with supervisor(root, runtime=program):
            raise AssertionError("it was opened")
    assert caught.value.name == str(program)
    assert not root.exists()


@damages
@pytest.mark.runtimes("fake", "runc", "crun")
async def test_gone_at_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    program: Path,
    damage: Damage,
    nothing_left: NothingLeft,
) -> None:
    """A create names a runtime that went away while we are open, and leaves nothing."""
    async with supervisor(root, runtime=program) as sup:
        damage(program)
        with pytest.raises(RuntimeNotFound) as caught:
            await sup.create("a", bundle("sleep", "60"))
        assert caught.value.name == str(program) and str(program) in str(caught.value)
        assert "a" not in sup.broken
        await nothing_left()


@damages
@pytest.mark.parametrize("leash", [False, True], ids=["free", "leashed"])
async def test_gone_at_start_and_exec(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    program: Path,
    damage: Damage,
    leash: bool,
) -> None:
    """A start or exec names a runtime that is gone, and the container's state is unchanged."""
    async with (
        supervisor(root, runtime=program, deadlines=Deadlines(shim=0.1), leash=leash) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        damage(program)
        with pytest.raises(RuntimeNotFound):
            await a.start()
        assert a.state is State.CREATED
        program.unlink(missing_ok=True)
        movable(choice, program)
        await a.start()
        damage(program)
        with pytest.raises(RuntimeNotFound):
            await a.exec(["true"], id="job")
        assert not (root / "a/job").exists() and list(a.processes) == ["init"]
        program.unlink(missing_ok=True)
        movable(choice, program)


@damages
async def test_gone_at_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    program: Path,
    damage: Damage,
    nothing_left: NothingLeft,
) -> None:
    """A runtime that is gone at delete leaves a broken container, which the next open removes."""
    async with supervisor(root, runtime=program) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        damage(program)
        with pytest.raises(CleanupIncomplete, match="a-runtime"):
            await a.delete()
        assert a.state is State.BROKEN and "a" not in sup
        assert str(root / "a") in sup.broken["a"].reason
    program.unlink(missing_ok=True)
    movable(choice, program)
    async with supervisor(root, runtime=program) as sup:
        assert (list(sup), list(sup.broken)) == ([], [])
        await nothing_left()


async def test_relative_path(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    program: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A runtime that was given as a relative path is found after a change of directory too."""
    monkeypatch.chdir(workdir)
    runtime = Runtime.find("./a-runtime")
    monkeypatch.chdir("/")
    async with supervisor(runtime=runtime) as sup, await sup.create("a", bundle("true")) as a:
        await a.start()
        assert (await a.wait()).code == 0


@pytest.mark.parametrize("trouble", ["gone", "mute-state", "hang-state"])
async def test_silent_at_open(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    choice: Choice,
    program: Path,
    trouble: str,
) -> None:
    """A container whose runtime can't say whether it was started is adopted, and so are the
    others."""
    runtime = Runtime.find(program) if trouble == "gone" else choice.runtime(trouble)
    async with supervisor(root, runtime=runtime) as sup:
        await sup.create("a", bundle("sleep", "60"))
        sup.runtime = choice.runtime()
        await sup.create("b", bundle("sleep", "60"))
    if trouble == "gone":
        program.unlink()
    async with supervisor(root, deadlines=Deadlines(call=2.0, kill=5)) as sup:
        assert list(sup) == ["a", "b"]
        assert (sup["a"].status, sup["b"].state) == (None, State.CREATED)
        if trouble == "gone":
            movable(choice, program)
        for box in sup.values():
            await box.delete(force=True)
