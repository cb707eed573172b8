"""The runtime reports that a process was made, and which one: wrongly, late or never."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import (
    CreateTimeout,
    DeadlineExpired,
    Deadlines,
    InfrastructureError,
    RuntimeFailed,
    State,
    TooManyProcesses,
)
from supervisor.process._launch import _refusal
from supervisor.runtime import Call, Head
from supervisor.shim import Refused
from supervisor.state import ProcessLayout
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import SOON, hurried, until, with_hook
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

hanging = pytest.mark.parametrize("when", ["", "-before-pid", "-after-pid"])
rubbish = pytest.mark.parametrize(
    "text",
    [
        "rubbish",
        "",  # the fake writes bytes with a NUL instead
        " ",
        "-5",
        "0",
        "1",
        "+7",
        "7 8",
        "4194305",  # above the kernel's limit of pids
        "2147483648",
        "9" * 25,
        "9" * 5000,
    ],
)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to no container and must outlive the test."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        yield process
        assert process.poll() is None, "a bystander was killed"
        process.kill()


@rubbish
async def test_rubbish_at_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    text: str,
    nothing_left: NothingLeft,
) -> None:
    """A pid file without a pid, or with the pid of no process, fails the create and leaves
    nothing."""
    async with supervisor(root, runtime=choice.runtime(f"garbage-pid:{text}")) as sup:
        with pytest.raises(RuntimeFailed, match="pid") as caught:
            await sup.create("a", bundle("sleep", "60"))
        assert caught.value.returncode == 0
        await nothing_left()


@pytest.mark.parametrize(
    ("fault", "terminal", "said"),
    [("no-pid", False, "no pid file"), ("no-console", True, "sent no terminal")],
)
async def test_something_is_missing(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    fault: str,
    terminal: bool,
    said: str,
    nothing_left: NothingLeft,
) -> None:
    """A runtime that succeeds without pid file or terminal has failed; nothing is left."""
    async with supervisor(root, runtime=choice.runtime(fault)) as sup:
        with pytest.raises(RuntimeFailed, match=said) as caught:
            await sup.create("a", bundle("sleep", "60"), terminal=terminal)
        assert caught.value.returncode == 0
        await nothing_left()


async def test_bystander(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    bystander: subprocess.Popen[bytes],
    nothing_left: NothingLeft,
) -> None:
    """A pid file that names a process that isn't the shim's child isn't believed."""
    async with supervisor(root, runtime=choice.runtime(f"garbage-pid:{bystander.pid}")) as sup:
        with pytest.raises(RuntimeFailed, match="no child"):
            await sup.create("a", bundle("sleep", "60"))
        assert bystander.poll() is None


@hanging
async def test_hanging_create(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    when: str,
    nothing_left: NothingLeft,
) -> None:
    """A create that never returns is ended at the deadline, whatever was made by then."""
    runtime = choice.runtime(f"hang-create{when}")
    async with supervisor(root, runtime=runtime, deadlines=Deadlines(create=SOON)) as sup:
        with pytest.raises(CreateTimeout) as caught:
            await sup.create("a", bundle("sleep", "60"))
        assert (caught.value.seconds, caught.value.container) == (SOON, "a")
        assert isinstance(caught.value, DeadlineExpired) and "0.4 seconds" in str(caught.value)
        assert isinstance(caught.value, InfrastructureError)
        await nothing_left()


@pytest.mark.runtimes("runc", "crun")
async def test_hanging_hook(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A real create that hangs in a hook is ended at the deadline; cgroup and hook go too."""
    async with supervisor(root, deadlines=Deadlines(create=SOON)) as sup:
        with pytest.raises(CreateTimeout):
            await sup.create("a", with_hook(bundle("true"), "createRuntime", "sleep", "1000"))
        await nothing_left()


@hanging
async def test_hanging_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, when: str
) -> None:
    """An exec that never returns is ended at the deadline, and the container goes on."""
    runtime = choice.runtime(f"hang-exec{when}")
    async with (
        supervisor(root, runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        with hurried(a, create=SOON), pytest.raises(CreateTimeout):
            await a.exec(["sleep", "61"], id="job")
        assert not (root / "a/job").exists() and list(a.processes) == ["init"]
        assert (a.state, a.status) == (State.RUNNING, None)


async def test_late_pid(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """A pid that is written long after the process was made is waited for, and is the right one."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(
        f"hang-create-before-pid-while:{gate}", f"hang-exec-before-pid-while:{gate}"
    )
    async with supervisor(root, runtime=runtime) as sup:

        async def open_gate(made: Path, pid: Path) -> None:
            await until(made.exists, f"{made}")
            await trio.testing.wait_all_tasks_blocked()
            assert not pid.exists()
            gate.unlink()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_gate, root / ".runtime/a/state", root / "a/init/pid")
            a = await sup.create("a", bundle("sleep", "60"))
        async with a:
            assert a.pid == int((root / ".runtime/a/state").read_text())
            await a.start()
            gate.touch()
            ran = workdir / "ran"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_gate, ran, root / "a/job/pid")
                job = await a.exec(["sh", "-c", f"echo $$ > {ran}; exec sleep 61"], id="job")
            assert job.pid == int(ran.read_text())
            os.kill(job.pid, 9)
            assert (await job.wait()).signal == 9


@pytest.mark.parametrize("phase", ["fork", "launch"])
def test_a_shim_that_can_make_no_process(tmp_path: Path, phase: str) -> None:
    """A limit on processes is the machine's fault, and not that of the runtime or the shim."""
    told = Refused("cannot fork", phase, errno=errno.EAGAIN, code=0, signal=0)
    layout = ProcessLayout(str(tmp_path))
    call = Call(head=Head(path="/usr/bin/runc", root="/r", container="a"), verb="create")
    with pytest.raises(TooManyProcesses) as caught:
        _refusal(told, layout, call, aloud="")
    assert caught.value.container == "a"
