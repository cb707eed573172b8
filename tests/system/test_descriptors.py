"""Too many open files: the operation undoes its work, and no exit is lost."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from supervisor import (
    LOG,
    PIPE,
    Bundle,
    Deadlines,
    ExitStatus,
    InfrastructureError,
    Source,
    State,
    TooManyFiles,
    open_supervisor,
)
from supervisor.cgroups._hierarchies import _is_root
from supervisor.directories._temporary import _kind
from supervisor.process._ending import Ending
from supervisor.rootfs._secrets import secrets_below
from supervisor.rootfs._users import Account, find_account
from supervisor.runtime._runtime import why_not
from supervisor.spec._privileges import may_raise_limits
from supervisor.spec._seccomp import _PROFILE, check_seccomp
from supervisor.state import read_exit_status
from supervisor.state._id_claims import _read
from supervisor.system import is_argument
from supervisor.system._owner import _is_our_group, _is_unmapped
from supervisor.userns._ranges import read_lines
from supervisor.userns._rootless import _name
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import left, read_all, until
from tests.support.descriptors import only
from tests.support.runtimes import Choice, needs_root

pytestmark = pytest.mark.runtimes("fake", "crun", "runc")

_MOST = 40


async def _at_every_limit(attempt: Callable[[int], Awaitable[None]]) -> int:
    """Call ``attempt`` with more and more descriptors; return how many were needed."""
    for free in range(_MOST):
        try:
            await attempt(free)
        except TooManyFiles as error:
            assert isinstance(error, InfrastructureError) and isinstance(error, OSError)
            continue
        return free
    raise AssertionError("it never succeeded")


async def test_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    nothing_left: NothingLeft,
) -> None:
    """With however few descriptors, create works or leaves nothing: not even a broken one."""
    async with supervisor(root) as sup:
        spec = bundle("sleep", "60")

        async def attempt(free: int) -> None:
            try:
                with only(free):
                    a = await sup.create("a", spec, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            except BaseException:
                assert (dict(sup.broken), list(sup)) == ({}, []), free
                assert left(root) == [], free
                raise
            await a.start()
            await a.delete(force=True)

        assert await _at_every_limit(attempt) > 4
        await nothing_left()


@pytest.mark.runtimes("crun", "runc")
@needs_root
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"user": "daemon"}, id="user"),
        pytest.param({"userns": "auto"}, id="userns"),
        pytest.param({"hostname": "a", "network": "host", "init": True}, id="others"),
    ],
)
async def test_a_bundle_and_its_container(
    supervisor: OpenSupervisor, options: dict[str, Any], root: Path, nothing_left: NothingLeft
) -> None:
    """A bundle of the host's files, and a container with every option, work or leave nothing."""
    async with supervisor(root) as sup:

        async def attempt(free: int) -> None:
            with only(free), Bundle.from_host(["sleep", "60"], **options) as bundle:
                a = await sup.create(
                    "a",
                    bundle,
                    capabilities=["CAP_CHOWN"],
                    rlimits={"nofile": 64},
                    oom_score_adj=10,
                )
            await a.delete(force=True)

        assert await _at_every_limit(attempt) > 4
        await nothing_left()


@pytest.mark.runtimes("fake")
async def test_create_while_others_take_the_rest(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """A create that waits for the runtime has reserved its descriptors, even if others take the
    rest."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-create-before-pid-while:{gate}")
    taken: list[int] = []

    async def take_the_rest() -> None:
        await until((root / ".runtime/a/state").exists, "the runtime is at work")
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        gate.unlink()

    async with supervisor(root, runtime=runtime) as sup:
        try:
            with only(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take_the_rest)
                    a = await sup.create("a", bundle("sleep", "60"))
                assert taken and a.pid is not None
        finally:
            for fd in taken:
                os.close(fd)
        await a.delete()


async def test_exec(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """With however few descriptors, exec works or leaves nothing, and the container runs."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        before = sorted(os.listdir(root / "a"))

        async def attempt(free: int) -> None:
            try:
                with only(free):
                    job = await a.exec(["sh", "-c", "echo x; exit 9"], id="job", stdout=PIPE)
            except BaseException:
                assert list(a.processes) == ["init"], free
                assert sorted(os.listdir(root / "a")) == before, free
                raise
            assert job.stdout is not None
            async with job.stdout:
                assert await read_all(job) == b"x\n"
            assert (await job.wait()).code == 9

        assert await _at_every_limit(attempt) > 4
        assert (a.state, a.status) == (State.RUNNING, None)


async def test_exec_that_cannot_be_looked_at(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec that runs is returned, even without a descriptor for a look at the process. With six
    descriptors left, TooManyFiles was once raised, the program ran, and the process stayed."""

    def is_near(end: Ending) -> bool:
        raise TooManyFiles(os.strerror(errno.EMFILE))

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with monkeypatch.context() as scarce:
            scarce.setattr(Ending, "is_near", is_near)
            job = await a.exec(["sh", "-c", "exit 9"], id="job")
        assert (await job.wait()).code == 9


async def test_start(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """With however few descriptors, start either works or leaves the container created."""
    async with (
        supervisor(deadlines=Deadlines(shim=0.02)) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):

        async def attempt(free: int) -> None:
            try:
                with only(free):
                    await a.start()
            except BaseException:
                assert (a.state, a.status) == (State.CREATED, None), free
                raise

        assert await _at_every_limit(attempt) > 0
        assert a.state is State.RUNNING


async def test_exit(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """An exit when there isn't a single descriptor left is seen, and stays on record."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sh", "-c", "read x; exit 23"), stdin=PIPE)
        await a.start()
        assert a.stdin is not None
        with only(0):
            await a.stdin.send_all(b"\n")
            status = await a.wait()
        assert (status.code, status.source) == (23, Source.SHIM)
    async with supervisor(root) as sup:
        assert (await sup["a"].wait()).code == 23
        await sup["a"].delete()


async def test_exit_that_cannot_be_read_yet(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another task takes the last descriptor first, the exit is settled later."""
    refusals = 3

    def read_later(path: str) -> ExitStatus | None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise TooManyFiles("not one left")
        return read_exit_status(path)

    async with supervisor() as sup, await sup.create("a", bundle("sh", "-c", "exit 23")) as a:
        monkeypatch.setattr("supervisor.process._verdict.read_exit_status", read_later)
        await a.start()
        assert (await a.wait()).code == 23
        assert refusals == -1


async def test_kill(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container can be killed when there isn't a single descriptor left."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with only(0):
            a.kill()
            assert (await a.wait()).signal == 9


async def test_delete(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A delete that hasn't the descriptors to be finished says so, and can be repeated."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        for free in range(_MOST):
            with only(free):
                try:
                    await a.delete(force=True)
                except InfrastructureError:
                    assert a.state is State.BROKEN and list(sup.broken) == ["a"], free
                else:
                    break
        assert a.state is State.DELETED and dict(sup.broken) == {}
        await nothing_left()


async def test_delete_what_has_ended(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A delete without descriptors doesn't leave the container in *deleting*, and can be
    repeated."""
    async with supervisor(root) as sup:
        for free in range(_MOST):
            a = await sup.create("a", bundle("sleep", "60"), stdin=PIPE, stdout=PIPE)
            await a.start()
            a.kill()
            await a.wait()
            try:
                with only(free):
                    await a.delete()
            except InfrastructureError:
                assert (a.state, list(sup.broken)) == (State.BROKEN, ["a"]), free
                await a.delete(force=True)
            assert a.state is State.DELETED, free
        await nothing_left()


async def test_logs(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """With however few descriptors, the log is read, or the error says why not."""
    async with supervisor() as sup, await sup.create("a", bundle("echo", "x"), stdout=LOG) as a:
        await a.start()
        await a.wait()

        async def attempt(free: int) -> None:
            with only(free):
                records = [record async for record in a.logs()]
            assert [record.data for record in records] == [b"x"]

        await _at_every_limit(attempt)


@pytest.mark.runtimes("crun", "runc")
async def test_a_bundle_of_ours(rootfs: Path, workdir: Path) -> None:
    """A bundle from a root filesystem, with every option, works or leaves nothing."""

    async def attempt(free: int) -> None:
        with only(free), Bundle.from_rootfs(rootfs, ["true"], init=True, memory_bytes=1 << 30):
            pass

    assert await _at_every_limit(attempt) > 0


async def test_open(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """With however few descriptors, opening a root fails, or adopts a container and the exec
    inside.

    What is running goes on meanwhile.
    """
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        await a.exec(["sleep", "61"], id="job")

    async def attempt(free: int) -> None:
        with only(free):
            async with supervisor(root) as sup:
                assert dict(sup.broken) == {}
                assert list(sup["a"].processes) == ["init", "job"]
                assert sup["a"].state is State.RUNNING

    assert await _at_every_limit(attempt) > 4
    async with supervisor(root) as sup:
        sup["a"].processes["job"].kill()
        await sup["a"].processes["job"].wait()
        await sup["a"].delete(force=True)
        await nothing_left()


async def test_ephemeral(bundle: MakeBundle, choice: Choice, cgroup_parent: str) -> None:
    """With however few descriptors, an ephemeral supervisor opens or leaves nothing."""
    runtime = choice.runtime()

    async def attempt(free: int) -> None:
        with only(free):
            async with open_supervisor(runtime=runtime, cgroup_parent=cgroup_parent) as sup:
                assert os.path.isdir(sup.root)
        assert not os.path.exists(sup.root)

    assert await _at_every_limit(attempt) > 2
    await trio.lowlevel.checkpoint()


async def test_capacity(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The reported capacity is never more than what can be created."""
    async with supervisor(root) as sup:
        spec = bundle("sleep", "60")
        made = []
        with only(30):
            promised = sup.capacity
            assert promised > 0
            with contextlib.suppress(TooManyFiles):
                for n in range(_MOST):
                    made.append(await sup.create(f"a{n}", spec))
        assert len(made) >= promised - 5  # a create needs a few more for a moment
        for box in made:
            await box.delete()


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda: list(secrets_below("/etc")), id="secrets"),
        pytest.param(lambda: read_lines("/etc/passwd"), id="subordinate ids"),
        pytest.param(lambda: find_account(Account(user=1000), "/"), id="group"),
        pytest.param(lambda: _kind("0:1"), id="file system"),
        pytest.param(lambda: _is_unmapped(65534), id="owner"),
        pytest.param(_is_root, id="root"),
        pytest.param(lambda: _read("/etc/passwd"), id="note"),
        pytest.param(lambda: _is_our_group(54321), id="our group"),
        pytest.param(lambda: _name(54321), id="our name"),
        pytest.param(lambda: is_argument("x"), id="arguments"),
        pytest.param(lambda: why_not("crun"), id="runtime"),
        pytest.param(lambda: check_seccomp(_PROFILE), id="profile"),
        pytest.param(may_raise_limits, id="limits"),
    ],
)
def test_what_was_not_looked_at_may_be_there(look: Callable[[], object]) -> None:
    """A file that a lack of descriptors hides counts as present: no secret is shown, no id given
    twice."""
    with only(0), pytest.raises(TooManyFiles):
        look()
    look()
