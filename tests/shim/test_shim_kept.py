"""``on_shim_lost="keep"``: a process goes on without a shim, and its pidfd shows the end."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from supervisor import LOG, PIPE, Container, InvalidValue, Process, Source, State
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import reap, shim_of, state_of, until
from tests.support.leaks import wait_for
from tests.support.streams import everything

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")

ECHO = ["sh", "-c", "while read x; do echo $x || exit 7; done; exit 42"]


async def lose_shim(root: Path, process: Process) -> None:
    """SIGKILL a process's shim, and wait until the shim is gone."""
    shim = shim_of(root / process.container / process.id)
    os.kill(shim, signal.SIGKILL)
    await until(lambda: state_of(shim) in ("", "Z"), "its shim is gone")


@pytest.fixture
async def box(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> AsyncIterator[Container]:
    """A running container that has lost its shim."""
    async with (
        supervisor(root) as sup,
        await sup.create(
            "a", bundle(*ECHO), stdin=PIPE, stdout=PIPE, on_shim_lost="keep"
        ) as container,
    ):
        await container.start()
        await lose_shim(root, container.init)
        yield container


async def echoes(process: Process, word: bytes) -> None:
    """Send a word, and read the echo."""
    assert process.stdin is not None and process.stdout is not None
    with trio.fail_after(10):
        await process.stdin.send_all(word)
        assert await process.stdout.receive_some() == word


async def test_it_goes_on(box: Container) -> None:
    """The process runs, its streams are whole, and the true exit status is known in the end."""
    await echoes(box.init, b"one\n")
    assert box.state is State.RUNNING and box.status is None
    assert box.stdin is not None
    await box.stdin.aclose()
    with trio.fail_after(10):
        status = await box.wait()
    assert (status.code, status.source) == (42, Source.KERNEL)


async def test_it_is_watched_until_its_end(box: Container) -> None:
    """A process without a shim counts as unwatched as soon as the process has ended."""
    assert box.pid is not None and box.init._task.handles.watched()
    pid = box.pid
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: not box.init._task.handles.watched(), "its end"
    )  # nothing else runs here meanwhile
    assert box.status is None and state_of(pid) in ("", "Z")


async def test_both_gone_while_nobody_looked(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A process that is gone together with its shim at the adoption isn't waited for."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"), on_shim_lost="keep")
        await a.start()
        pid = a.pid
    await lose_shim(root, a.init)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await reap(pid)
    async with supervisor(root) as sup:
        status = sup["a"].status
        assert status is not None and status.why is not None
        assert "shim and process are gone" in status.why
        await sup["a"].delete()


async def test_signals_and_exec(box: Container) -> None:
    """A kept process can be signalled, and its container can still run an exec."""
    if box._core.record.runtime.endswith(("crun", "runc")):
        process = await box.exec(["true"])
        assert (await process.wait()).code == 0
    box.kill()
    with trio.fail_after(10):
        assert (await box.wait()).signal is signal.SIGKILL


async def test_nobody_reads(box: Container) -> None:
    """Without a reader of its output the process waits, as with a shim, and gets no SIGPIPE."""
    assert box.init.stdout is not None and box.stdin is not None
    box.init._task.streams.stdout.detach()  # type: ignore[union-attr]
    await box.stdin.send_all(b"one\n")
    await trio.sleep(0.1)
    assert box.status is None


async def test_nobody_wants_it(box: Container) -> None:
    """Closing the output also closes the end that we hold in the shim's place."""
    assert box.stdout is not None and box.stdin is not None
    await box.stdout.aclose()
    await box.stdin.send_all(b"one\n")
    with trio.fail_after(10):
        assert (await box.wait()).returncode in (7, -signal.SIGPIPE)


@pytest.mark.runtimes("runc", "crun")  # the fake's processes are in no cgroup: not certain
async def test_adopted(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The next supervisor keeps the process too, whether the shim is lost before or after."""
    for before in (True, False):
        async with supervisor(root) as sup:
            box = await sup.create("a", bundle("sleep", "600"), on_shim_lost="keep")
            await box.start()
            if before:
                await lose_shim(root, box.init)
        if not before:
            await lose_shim(root, box.init)
        async with supervisor(root) as sup, sup["a"] as box:
            assert box.state is State.RUNNING
            await trio.sleep(0.05)
            assert box.status is None
            box.kill()
            with trio.fail_after(10):
                status = await box.wait()
            assert (status.signal, status.source) == (signal.SIGKILL, Source.KERNEL)


async def test_lost_before_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A process without a shim can still be started."""
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle(*ECHO), stdin=PIPE, stdout=PIPE, on_shim_lost="keep") as box,
    ):
        await lose_shim(root, box.init)
        with trio.fail_after(10):
            await box.start()
        await echoes(box.init, b"one\n")


async def test_of_an_exec(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """An exec is kept as a container is."""
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sleep", "60"), on_shim_lost="keep") as box,
    ):
        await box.start()
        process = await box.exec(ECHO, stdin=PIPE, stdout=PIPE)
        await lose_shim(root, process)
        await echoes(process, b"one\n")
        process.close_stdin()
        with trio.fail_after(10):
            assert (await process.wait()).code == 42
        assert await everything(process.stdout) == b""


async def test_what_cannot_outlive_its_shim(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Terminals and logs are in the shim: refused, for init and exec; so is any other word."""
    async with supervisor() as sup:
        with pytest.raises(InvalidValue, match="impossible with a terminal"):
            await sup.create("a", bundle("true"), stdout=LOG, on_shim_lost="keep")
        with pytest.raises(InvalidValue, match="impossible with a terminal"):
            await sup.create("a", bundle("true"), terminal=True, on_shim_lost="keep")
        with pytest.raises(InvalidValue, match="'kill' or 'keep'"):
            await sup.create("a", bundle("true"), on_shim_lost="hope")
        assert not list(sup)
        async with await sup.create("a", bundle("sleep", "60"), on_shim_lost="keep") as box:
            await box.start()
            with pytest.raises(InvalidValue, match="impossible with a terminal"):
                await box.exec(["true"], stderr=LOG)
