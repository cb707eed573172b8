"""A shim that is stopped, and reads no lines: nothing is lost without a word."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from supervisor import PIPE, Deadlines, Process, ShimError
from supervisor.shim import _fifos
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shim_of, until
from tests.support.streams import everything

HASTY = Deadlines(shim=0.5)
"""For tests that wait for a stopped shim, in vain."""

LINE = b"1 1 1\n"  # a size, which a process without a terminal doesn't have: skipped


@contextlib.contextmanager
def deaf(process: Process) -> Iterator[None]:
    """Stop a process's shim while the shim's control fifo is full. We are less patient then."""
    directory = Path(process._task.layout.path)
    shim = shim_of(directory)
    os.kill(shim, signal.SIGSTOP)
    fd = os.open(directory / "control", os.O_WRONLY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, LINE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_fifos, "_PATIENCE_SECONDS", 0.3)
            yield
    finally:
        os.close(fd)
        with contextlib.suppress(ProcessLookupError):  # the shim was killed
            os.kill(shim, signal.SIGCONT)


def readable(process: Process) -> bool:
    """Whether there are lines that the shim hasn't read."""
    with open(Path(process._task.layout.path, "control"), "rb+", buffering=0) as control:
        return bool(select.select([control], [], [], 0)[0])


@pytest.mark.runtimes("crun")  # the test takes seconds
@pytest.mark.parametrize("inside", [False, True], ids=["init", "exec"])
async def test_closing_the_input(
    supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool
) -> None:
    """A close that can't reach the shim raises ShimError, and works when repeated; it was once
    lost."""
    cat = ["sh", "-c", "cat; echo end"]
    spec = bundle("sleep", "60") if inside else bundle(*cat)
    told = {} if inside else {"stdin": PIPE, "stdout": PIPE}
    async with supervisor() as sup, await sup.create("a", spec, **told) as box:
        await box.start()
        process = await box.exec(cat, stdin=PIPE, stdout=PIPE) if inside else box.init
        assert process.stdin is not None
        with deaf(process):
            for close in (process.stdin.aclose, process.stdin.aclose):
                with trio.fail_after(10), pytest.raises(ShimError, match="takes no more lines"):
                    await close()
            with pytest.raises(ShimError) as caught:
                process.close_stdin()
            assert caught.value.container == "a"
        await process.stdin.aclose()
        with trio.fail_after(10):
            assert await everything(process.stdout) == b"end\n"


async def test_it_is_repeated(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A close waits for a shim that goes on soon, without any action of the caller."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("cat"), stdin=PIPE, stdout=PIPE) as box,
        trio.open_nursery() as nursery,
    ):
        await box.start()
        assert box.stdin is not None
        with deaf(box.init):
            nursery.start_soon(box.stdin.aclose)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10):
            assert (await box.wait()).code == 0


async def test_a_cancelled_close(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A cancelled close has closed our end, and a second close ends the input."""
    async with supervisor() as sup, await sup.create("a", bundle("cat"), stdin=PIPE) as box:
        await box.start()
        assert box.stdin is not None
        with deaf(box.init):
            with trio.move_on_after(0.05) as scope:
                await box.stdin.aclose()
            assert scope.cancelled_caught
        await box.stdin.aclose()
        with trio.fail_after(10):
            assert (await box.wait()).code == 0


async def test_closing_an_output(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Closing an output with a stopped shim raises ShimError, and works when repeated."""
    script = "while :; do echo y || exit 2; done"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as box,
    ):
        await box.start()
        assert box.stdout is not None
        with deaf(box.init), pytest.raises(ShimError):
            await box.stdout.aclose()
        await box.stdout.aclose()
        with trio.fail_after(10):
            assert (await box.wait()).code == 2


async def test_a_terminal(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Resizing, hanging up and closing a terminal raise no bare BlockingIOError."""
    async with supervisor() as sup, await sup.create("a", bundle("cat"), terminal=True) as box:
        await box.start()
        with deaf(box.init):
            for act in (lambda: box.resize(10, 10), box.init.hang_up, box.close_stdin):
                with pytest.raises(ShimError, match="try again when the shim runs"):
                    act()
        await until(lambda: not readable(box.init), "a shim that has read all lines")
        box.init.hang_up()
        with trio.fail_after(10):
            await box.wait()


async def test_a_signal(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Where the pid isn't certain a signal is a line, too. A kill finds the cgroup."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        pidfd, box.init._task.handles.process = box.init._task.handles.process, None
        try:
            with deaf(box.init):
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with pytest.raises(ShimError):
                        box.init.send_signal(number)
        finally:
            box.init._task.handles.process = pidfd


async def test_deleting_it(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container with a stopped shim is deleted all the same."""
    async with (
        supervisor(deadlines=HASTY) as sup,
        await sup.create("a", bundle("cat"), stdin=PIPE) as box,
    ):
        await box.start()
        with deaf(box.init), trio.fail_after(20):
            await box.delete(force=True)


async def test_a_run_is_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A cancelled run ends by a signal, though the run's input can't be ended."""
    async with (
        supervisor(deadlines=HASTY) as sup,
        await sup.create("a", bundle("sleep", "60")) as box,
        trio.open_nursery() as nursery,
    ):
        await box.start()

        async def run(task_status: trio.TaskStatus[Process]) -> None:
            await box.run(["cat"], stdin=bytes(1 << 20), stdout=None, task_status=task_status)

        process: Process = await nursery.start(run)
        with deaf(process), trio.fail_after(20):
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await process._task.life.wait_over()
