"""The runtime fails, is killed, or says too much."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from supervisor import CleanupIncomplete, OCIRuntimeError, ProgramNotFound, RuntimeFailed, State
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import living, until, with_hook
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

kinds = pytest.mark.parametrize("kind", ["fail", "die", "mute", "noisy"])
moments = pytest.mark.parametrize("when", ["", "-before-pid", "-after-pid"])


def _faults(kind: str, verb: str, when: str = "") -> list[str]:
    """Return the faults: a noisy runtime fails too, after a megabyte."""
    name = f"{verb}{when}"
    return [f"noisy-{name}", f"fail-{name}:enough"] if kind == "noisy" else [f"{kind}-{name}"]


def _check(error: RuntimeFailed, kind: str, verb: str) -> None:
    """Check the error that a caller gets."""
    said = {"fail": f"told to fail in {verb}", "noisy": "enough"}.get(kind)
    assert verb in error.command and verb in str(error)
    assert error.returncode == (-signal.SIGKILL if kind == "die" else 1)
    assert error.container == "a" and isinstance(error, OCIRuntimeError)
    if said is None:
        assert error.reason == ""
    else:
        assert error.reason.startswith(said) and said in str(error)


@kinds
@moments
async def test_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    kind: str,
    when: str,
    nothing_left: NothingLeft,
) -> None:
    """A create that fails at any time quotes the runtime's last error and leaves nothing."""
    async with supervisor(root, runtime=choice.runtime(*_faults(kind, "create", when))) as sup:
        with pytest.raises(RuntimeFailed) as caught:
            await sup.create("a", bundle("sleep", "60"))
        _check(caught.value, kind, "create")
        assert "a" not in sup and "a" not in sup.broken
        await nothing_left()


@kinds
@moments
async def test_exec(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    kind: str,
    when: str,
) -> None:
    """An exec that fails at any time quotes the error and leaves nothing, and the container runs
    on."""
    runtime = choice.runtime(*_faults(kind, "exec", when))
    async with (
        supervisor(root, runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        before = living(os.getpid())
        with pytest.raises(RuntimeFailed) as caught:
            await a.exec(["sleep", "61"], id="job")
        _check(caught.value, kind, "exec")
        assert not (root / "a/job").exists() and list(a.processes) == ["init"]
        await until(lambda: living(os.getpid()) <= before, "the exec's process is gone")
        assert (a.state, a.status) == (State.RUNNING, None)


@kinds
async def test_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path, kind: str
) -> None:
    """A start that fails before the program ran leaves the container created, and can be
    repeated."""
    trouble = workdir / "trouble"
    trouble.touch()
    names = {"noisy": ["noisy-start", "fail-start"]}.get(kind, [f"{kind}-start"])
    runtime = choice.runtime(*(f"{name}-while:{trouble}" for name in names))
    async with supervisor(runtime=runtime) as sup, await sup.create("a", bundle("true")) as a:
        for _ in range(2):
            with pytest.raises(RuntimeFailed) as caught:
                await a.start()
            assert caught.value.returncode == (-9 if kind == "die" else 1)
            assert "start" in caught.value.command
            assert (a.state, a.status) == (State.CREATED, None)
        trouble.unlink()
        await a.start()
        assert (await a.wait()).code == 0


@kinds
async def test_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    workdir: Path,
    kind: str,
    nothing_left: NothingLeft,
) -> None:
    """A delete that fails leaves a broken container with the reason; deleting the container again
    works."""
    trouble = workdir / "trouble"
    trouble.touch()
    names = {"noisy": ["noisy-delete", "fail-delete"]}.get(kind, [f"{kind}-delete"])
    runtime = choice.runtime(*(f"{name}-while:{trouble}" for name in names))
    async with supervisor(root, runtime=runtime) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        with pytest.raises(CleanupIncomplete, match="delete") as caught:
            await a.delete()
        assert caught.value.container == "a" and "a" not in sup
        assert a.state is State.BROKEN
        assert sup.broken["a"].path == str(root / "a") in sup.broken["a"].reason
        trouble.unlink()
        await a.delete()
        assert (a.state, dict(sup.broken)) == (State.DELETED, {})
        await nothing_left()


async def test_noise_without_failure(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A megabyte on the runtime's stderr in every verb changes nothing."""
    runtime = choice.runtime(*(f"noisy-{verb}" for verb in ("create", "start", "exec", "delete")))
    err = workdir / "err"
    async with (
        supervisor(runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60"), stderr=err) as a,
    ):
        assert err.stat().st_size == 1 << 20  # the runtime has the container's own stderr
        await a.start()
        job = await a.exec(["sh", "-c", "exit 3"], stderr=err)
        assert (await job.wait()).code == 3
        assert err.stat().st_size == 2 << 20


@pytest.mark.parametrize("verb", ["create", "exec"])
async def test_noise_is_bounded(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, verb: str
) -> None:
    """The error quotes a bounded part of a megabyte of log, the runtime's last error."""
    runtime = choice.runtime(f"noisy-{verb}", f"fail-{verb}:no")
    async with supervisor(runtime=runtime) as sup:
        with pytest.raises(RuntimeFailed) as caught:
            async with await sup.create("a", bundle("sleep", "60")) as a:
                await a.start()
                await a.exec(["true"])
        assert caught.value.reason == "no" and len(str(caught.value)) < 200


@pytest.mark.runtimes("runc", "crun")
async def test_no_such_program(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """Create and exec name a program that isn't in the root filesystem."""
    async with supervisor(root) as sup:
        with pytest.raises(ProgramNotFound, match="nope"):
            await sup.create("a", bundle("nope"))
        await nothing_left()
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            with pytest.raises(ProgramNotFound, match="nope"):
                await a.exec(["nope"], id="job")
            assert not (root / "a/job").exists()
            job = await a.exec(["true"], id="job")  # the name is free again
            assert (await job.wait()).code == 0


@pytest.mark.runtimes("runc", "crun")
async def test_failing_hook(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A failing hook makes a real runtime's create fail half-way; nothing of the container is
    left."""
    async with supervisor(root) as sup:
        for when in ("prestart", "createRuntime"):
            with pytest.raises(RuntimeFailed) as caught:
                await sup.create("a", with_hook(bundle("sleep", "60"), when, "false"))
            assert caught.value.returncode and caught.value.reason
            await nothing_left()
