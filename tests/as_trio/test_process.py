"""`Process` beside what Trio's reference says of `trio.Process`, row by row."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from supervisor import DEVNULL, PIPE, STDOUT, Process, ProcessEnded
from tests.as_trio.programs import Programs
from tests.support.containers import until
from tests.support.processes import status_of

Opened = Callable[[], AbstractAsyncContextManager[Programs]]

SLEEP = ["sleep", "600"]
BOTH = ["sh", "-c", "cat; echo end >&2"]


def _gone(process: Process) -> None:
    """Wait until the process has ended and the shim has seen that, without a turn of the loop."""
    deadline = time.monotonic() + 20
    while process.returncode is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def test_args_and_pid(programs: Opened, kind: str) -> None:
    """`args` is what was run, our own init in front included; `pid` is on the host."""
    before = ("/dev/init", "--") if kind == "behind an init" else ()
    async with programs() as run, run.open(SLEEP) as process:
        assert process.args == (*before, *SLEEP)
        assert process.pid is not None and status_of(process.pid)["Pid"] == str(process.pid)


async def test_no_streams_unasked(programs: Opened) -> None:
    """A stream that isn't a PIPE is None."""
    async with programs() as run, run.open(["true"], stdout=DEVNULL) as process:
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert process.stdio is None


async def test_streams(programs: Opened) -> None:
    """A PIPE is a Trio stream: what is sent comes back, and each stream ends."""
    async with (
        programs() as run,
        run.open(BOTH, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process,
    ):
        assert isinstance(process.stdin, trio.abc.SendStream)
        assert isinstance(process.stdout, trio.abc.ReceiveStream)
        assert isinstance(process.stderr, trio.abc.ReceiveStream)
        await process.stdin.send_all(b"hello")
        await process.stdin.aclose()
        assert b"".join([part async for part in process.stdout]) == b"hello"
        assert b"".join([part async for part in process.stderr]) == b"end\n"


async def test_stdio(programs: Opened) -> None:
    """With PIPEs as input and output, `stdio` is one stream for both, and `send_eof` ends the
    input."""
    async with (
        programs() as run,
        run.open(BOTH, stdin=PIPE, stdout=PIPE, stderr=STDOUT) as process,
    ):
        assert isinstance(process.stdio, trio.StapledStream) and process.stderr is None
        assert process.stdio is process.stdio
        await process.stdio.send_all(b"1234\n")
        await process.stdio.send_eof()
        assert b"".join([part async for part in process.stdio]) == b"1234\nend\n"


async def test_one_stream_is_no_stdio(programs: Opened) -> None:
    """With the output alone there is no `stdio`."""
    async with programs() as run, run.open(["true"], stdout=PIPE) as process:
        assert process.stdio is None and process.stdout is not None


async def test_nobody_reads_any_more(programs: Opened, kind: str) -> None:
    """A program that writes to a stream that was closed gets SIGPIPE; a pid 1 only EPIPE."""
    script = ["sh", "-c", "while echo y; do :; done"]
    async with programs() as run, run.open(script, stdout=PIPE) as process:
        assert process.stdout is not None
        assert await process.stdout.receive_some(1) == b"y"
        await process.stdout.aclose()
        with trio.fail_after(20):
            status = await process.wait()
        assert status.signal == (None if kind == "init" else signal.SIGPIPE)


@pytest.mark.parametrize("code", [0, 1, 77, 255])
async def test_returncode(programs: Opened, code: int) -> None:
    """`wait` returns how the process ended, to every caller, as often as asked; `returncode` is the
    number."""
    async with programs() as run, run.open(["sh", "-c", f"exit {code}"]) as process:
        for _ in range(2):
            assert (await process.wait()).returncode == process.returncode == code
            assert process.poll() == code


async def test_returncode_updates_itself(programs: Opened) -> None:
    """`returncode` needs no turn of the loop, and no `wait`."""
    async with programs() as run, run.open(SLEEP) as process:
        assert process.returncode is process.poll() is None
        assert f"'sleep': running, pid {process.pid}>" in repr(process)
        process.kill()
        _gone(process)
        assert process.returncode == process.poll() == -signal.SIGKILL
        name = f"{process.container}/{process.id}"
        assert repr(process) == f"<supervisor.Process {name} 'sleep': killed by SIGKILL>"


async def test_those_who_wait_are_woken(programs: Opened) -> None:
    """Waiting tasks are woken even if another task has read `returncode` first."""
    async with programs() as run, run.open(SLEEP) as process:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.wait)
                await trio.testing.wait_all_tasks_blocked()
                process.kill()
                _gone(process)


async def test_many_wait(programs: Opened) -> None:
    """Cancelling a `wait` does nothing to the process, nor to other waiting tasks."""
    async with programs() as run, run.open(SLEEP) as process:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(process.wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert process.returncode is None
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(process.wait)
                await trio.testing.wait_all_tasks_blocked()
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
async def test_signals(programs: Opened, kind: str, number: signal.Signals) -> None:
    """`returncode` is -N after signal N. A pid 1 gets only signals that it has a handler for, and
    SIGKILL."""
    deaf = kind == "init" and number != signal.SIGKILL
    async with programs() as run, run.open(SLEEP) as process:
        if kind == "behind an init":
            await until(lambda: _has_child(process), "its program")
        process.send_signal(number)
        with trio.move_on_after(0.2 if deaf else 20):
            await process.wait()
        assert process.returncode == (None if deaf else -number)


def _has_child(process: Process) -> bool:
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return bool(file.read())


async def test_terminate_and_kill(programs: Opened, kind: str) -> None:
    """`terminate` and `kill` are `send_signal` of SIGTERM and SIGKILL."""
    ready = ["sh", "-c", "trap 'exit 9' TERM; echo set; while :; do sleep 0.05; done"]
    async with programs() as run:
        async with run.open(ready, stdout=PIPE) as process:
            assert process.stdout is not None
            assert await process.stdout.receive_some() == b"set\n"
            process.terminate()
            assert (await process.wait()).returncode == 9
        async with run.open(SLEEP) as process:
            process.kill()
            assert (await process.wait()).returncode == -signal.SIGKILL


async def test_a_signal_after_the_end(programs: Opened) -> None:
    """A signal after the end raises, where Trio says nothing: at once, before any wait."""
    async with programs() as run, run.open(["true"]) as process:
        _gone(process)
        with pytest.raises(ProcessEnded):
            process.terminate()


async def test_killed_when_its_output_has_ended(programs: Opened, kind: str) -> None:
    """The end of the output is the end of the process: SIGKILL changes nothing. Behind an init it
    may hit the init first."""
    async with programs() as run:
        for _ in range(5):
            async with run.open(["cat"], stdin=PIPE, stdout=PIPE) as process:
                assert process.stdin is not None and process.stdout is not None
                await process.stdin.aclose()
                assert await process.stdout.receive_some() == b""
                with contextlib.suppress(ProcessEnded):
                    process.kill()
                ends = (0, -signal.SIGKILL) if kind == "behind an init" else (0,)
                assert (await process.wait()).returncode in ends


async def test_sigchld_ignored(programs: Opened) -> None:
    """The exit status is known although the system drops the states of our children; Trio says
    0."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with programs() as run, run.open(SLEEP) as process:
            process.kill()
            assert (await process.wait()).returncode == -signal.SIGKILL
    finally:
        signal.signal(signal.SIGCHLD, before)
