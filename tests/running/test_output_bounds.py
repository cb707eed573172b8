"""``max_output_bytes``: what a program prints is held in memory up to a bound, and no further."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from supervisor import (
    LOG,
    PIPE,
    Completed,
    ContainerPool,
    DeadlineExpired,
    Deadlines,
    InvalidValue,
    OutputTooLarge,
    Process,
    SupervisorError,
    run_container,
)
from supervisor.running import MAX_OUTPUT_BYTES
from supervisor.running._collect import _Collected
from supervisor.running._end import _discard
from supervisor.stdio import OutputStream
from supervisor.testing import SharedPool
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("runc", "crun", "fake")

LIMIT = 100_000
FLOODS = {"stdout": "exec cat /dev/zero", "stderr": "exec cat /dev/zero >&2"}
ECHOES = {"stdout": "exec cat", "stderr": "exec cat >&2"}
GATE = "/tmp/ts-output-gate"

Run = Callable[..., Awaitable[Completed]]
OpenRunner = Callable[[str], contextlib.AbstractAsyncContextManager[Run]]

each_way = pytest.mark.parametrize("how", ["run_container", "run", "pool"])
each_stream = pytest.mark.parametrize("stream", ["stdout", "stderr"])


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid 1 without a handler ignores SIGTERM; this shortens the wait for that."""
    monkeypatch.setattr("supervisor.container._stop.STOP_GRACE_SECONDS", 0.3)


@pytest.fixture
def runner(supervisor: OpenSupervisor, bundle: MakeBundle) -> OpenRunner:
    """Open one of the ways to run a program; at the end, nothing of the program is left."""

    @contextlib.asynccontextmanager
    async def open_runner(how: str) -> AsyncIterator[Run]:
        both = {"capture_stdout": True, "capture_stderr": True}
        with trio.fail_after(60):
            async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
                await box.start()
                if how == "pool":
                    async with ContainerPool(bundle("true"), size=1, supervisor=sup) as pool:
                        yield pool.run
                elif how == "run":
                    yield lambda args, **options: box.run(args, **both, **options)
                else:
                    yield lambda args, **options: run_container(
                        bundle("true"), supervisor=sup, args=args, **both, **options
                    )
                assert list(sup) == ["a"]
                while len(box.processes) > 1:  # the exec's task removes the exec a moment later
                    await trio.sleep(0.002)

    return open_runner


def captured(outcome: Any, stream: str) -> bytes:
    """Return what was captured of a stream, and make sure that nothing was of the other one."""
    held = {"stdout": outcome.stdout, "stderr": outcome.stderr}
    content = held.pop(stream)
    assert list(held.values()) == [b""]
    return cast(bytes, content)


# ---- what is too much --------------------------------------------------------------


@each_way
@each_stream
async def test_a_flood(runner: OpenRunner, how: str, stream: str) -> None:
    """A flooding program is ended, and the error has the output that was captured until then.

    Once there was no bound: in two seconds, a container of 32 MiB made us hold 2.6 GiB.
    """
    async with runner(how) as run:
        with pytest.raises(OutputTooLarge) as raised:
            await run(["sh", "-c", FLOODS[stream]], max_output_bytes=LIMIT)
        error = raised.value
        assert (error.stream, error.limit) == (stream, LIMIT)
        assert captured(error, stream) == bytes(LIMIT)
        assert isinstance(error, SupervisorError) and not isinstance(error, DeadlineExpired)
        assert error.container is not None and str(error).startswith(
            f"container {error.container!r}: the program put out more than {LIMIT} bytes on "
            f"{stream} and was ended: raise max_output_bytes"
        )


@each_way
@each_stream
@pytest.mark.parametrize("size", [1, 65_537])
async def test_up_to_the_limit(runner: OpenRunner, how: str, stream: str, size: int) -> None:
    """Exactly as much as may be is all right; a byte more isn't."""
    content = bytes(range(1, 251)) * (size // 250 + 1)
    args = ["sh", "-c", ECHOES[stream]]
    async with runner(how) as run:
        done = await run(args, stdin=content[:size], max_output_bytes=size)
        assert captured(done, stream) == content[:size]
        with pytest.raises(OutputTooLarge) as raised:
            await run(args, stdin=content[: size + 1], max_output_bytes=size)
        assert captured(raised.value, stream) == content[:size]


@each_way
async def test_the_streams_are_bounded_each(runner: OpenRunner, how: str) -> None:
    """What is on one of them isn't held against the other."""
    async with runner(how) as run:
        done = await run(["sh", "-c", "echo out; echo err >&2"], max_output_bytes=4)
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


@pytest.mark.runtimes("crun")
@each_way
async def test_the_default(runner: OpenRunner, how: str) -> None:
    """The default is 64 MiB for each stream; None means no bound."""
    assert MAX_OUTPUT_BYTES == 64 << 20
    content = bytes(MAX_OUTPUT_BYTES + 1)
    async with runner(how) as run:
        done = await run(["cat"], stdin=content[1:])
        assert done.stdout == content[1:]
        with pytest.raises(OutputTooLarge) as raised:
            await run(["cat"], stdin=content)
        assert raised.value.limit == MAX_OUTPUT_BYTES
        done = await run(["cat"], stdin=content, max_output_bytes=None)
        assert done.stdout == content


async def test_what_is_not_captured_is_not_counted(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """Output to a log doesn't count: the log has its own bounds."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        done = await box.run(["echo", "words"], stdout=LOG, max_output_bytes=1)
        assert (done.stdout, done.status.code) == (None, 0)


@each_way
async def test_what_can_be_no_bound(runner: OpenRunner, how: str) -> None:
    """A bad bound is refused by name, before anything is touched."""
    async with runner(how) as run:
        for wrong in (True, False, 0, -1, 1.5, float("inf"), "1", b"1"):
            with pytest.raises(InvalidValue, match="max_output_bytes must be 1 or more, or None"):
                await run(["true"], max_output_bytes=wrong)


@pytest.mark.runtimes("crun")
def test_a_shared_pool(bundle: MakeBundle, choice: Choice) -> None:
    """Through the thread, in a Trio task and without one."""
    with SharedPool(bundle("true"), size=1, runtime=choice.runtime()) as shared:
        args, run = ["echo", "1"], partial(shared.run, max_output_bytes=2)
        assert trio.run(run, args).stdout == b"1\n"
        assert shared.run_sync(args, max_output_bytes=2).stdout == b"1\n"
        for too_long in (
            lambda: trio.run(run, ["echo", "12"]),
            lambda: shared.run_sync(["echo", "12"], max_output_bytes=2),
        ):
            with pytest.raises(OutputTooLarge) as raised:
                too_long()
            assert raised.value.stdout == b"12"


# ---- what comes first counts -------------------------------------------------------


@pytest.mark.parametrize("how", ["run_container", "run"])
@pytest.mark.parametrize("then", ["cancelled", "deadline"])
async def test_too_long_came_first(runner: OpenRunner, how: str, then: str) -> None:
    """A cancellation or the deadline during the program's end doesn't change the error."""
    async with runner(how) as run:
        with trio.CancelScope() as scope:

            async def ask(process: Any) -> None:
                if then == "cancelled":
                    scope.cancel()
                else:
                    await trio.sleep(1.1)
                process.kill()

            with pytest.raises(OutputTooLarge):
                await run(
                    ["sh", "-c", FLOODS["stdout"]],
                    max_output_bytes=LIMIT,
                    deadline=1 if then == "deadline" else None,
                    deliver_cancel=ask,
                )
        assert not scope.cancelled_caught


async def test_the_deadline_came_first(runner: OpenRunner) -> None:
    """What is put out by a program that is being ended isn't counted."""
    script = "trap 'exec cat /dev/zero' TERM; while :; do sleep 0.01; done"
    async with runner("run") as run:
        asked = SimpleNamespace(count=0)

        async def ask(process: Process) -> None:
            process.send_signal(signal.SIGTERM)
            await trio.sleep(0.2)  # while the program floods us
            asked.count += 1
            process.kill()

        with pytest.raises(DeadlineExpired) as raised:
            await run(["sh", "-c", script], max_output_bytes=4, deadline=0.5, deliver_cancel=ask)
        assert (raised.value.stdout, asked.count) == (b"", 1)


async def test_it_has_ended_by_itself(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A program that has ended is killed without an error if a grandchild floods the stream.

    A ``deliver_cancel`` that signals the program needn't expect ProcessEnded.
    """
    script = f"(read x < {GATE}; exec cat /dev/zero) & exit 0"
    deadlines = Deadlines(drain=30)
    async with (
        supervisor(deadlines=deadlines) as sup,
        await sup.create("a", bundle("sleep", "60")) as box,
    ):
        await box.start()
        await box.run(["sh", "-c", f"rm -f {GATE}; busybox mkfifo {GATE}"])

        async def ask(process: Process) -> None:
            process.send_signal(signal.SIGTERM)

        async def run(*, task_status: trio.TaskStatus[Process]) -> None:
            with pytest.raises(OutputTooLarge):
                await box.run(
                    ["sh", "-c", script],
                    capture_stdout=True,
                    max_output_bytes=LIMIT,
                    deliver_cancel=ask,
                    task_status=task_status,
                )

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                process: Process = await nursery.start(run)
                assert (await process.wait()).code == 0
                await box.run(["sh", "-c", f"echo > {GATE}; rm {GATE}"])


async def test_given_up_unread(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec that was ended is gone, however much is unread; once the shim stayed for that."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["echo", "words"], stdout=PIPE)
        await process.wait()
        process._task.streams.abandon()
        with trio.fail_after(10):
            while len(box.processes) > 1:
                await trio.sleep(0.002)


async def test_adopted_without_its_output(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exec whose output was given up before a supervisor's death is adopted without damage."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        await box.exec(["sleep", "61"], id="e", stdout=PIPE, stderr=PIPE)
    (fifo,) = (root / "a").glob("**/e/stdout")
    fifo.unlink()
    async with supervisor(root) as sup:
        assert not sup.broken
        process = sup["a"].processes["e"]
        assert process.stdout is None and process.stderr is not None
        await sup["a"].delete(force=True)


# ---- one stream, without a container -----------------------------------------------


class Fed:
    """An output stream that yields the given data, at most as many bytes as are asked for."""

    def __init__(self, chunks: list[bytes], when_read: Callable[[], object] = int) -> None:
        self.rest = b"".join(chunks)
        self.taken = 0
        self._sizes: Iterator[int] = iter([len(chunk) for chunk in chunks])
        self._when_read = when_read

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        assert 1 <= max_bytes <= 64 * 1024
        size = min(next(self._sizes, len(self.rest)), max_bytes)
        chunk, self.rest = self.rest[:size], self.rest[size:]
        self.taken += len(chunk)
        self._when_read()
        return chunk


class Plain(trio.abc.ReceiveStream):
    """The same for who doesn't say how much."""

    def __init__(self, fed: Fed) -> None:
        self._fed = fed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._fed.receive_some(max_bytes or 64 * 1024)

    async def aclose(self) -> None:
        """Nothing is open."""


def collected(fed: Fed, limit: int | None) -> _Collected:
    return _Collected(cast(OutputStream, fed), limit)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    limit=st.none() | st.integers(1, 200),
)
def test_any_chunks(chunks: list[bytes], limit: int | None) -> None:
    """Whatever the chunks, the beginning is kept, and at most one byte more is taken."""
    content = b"".join(chunks)
    too_long = limit is not None and len(content) > limit
    fed = Fed(chunks)
    one = collected(fed, limit)

    async def read() -> None:
        with trio.CancelScope() as scope:
            await one.read(scope)
        assert scope.cancelled_caught == too_long

    trio.run(read)
    assert one.content.getvalue() == content[:limit]
    assert (one.too_long, one.complete.is_set()) == (too_long, not too_long)
    assert fed.taken == (len(content) if limit is None else min(len(content), limit + 1))


@pytest.mark.parametrize("first", ["deadline", "cancelled", "too long"])
def test_in_the_same_turn(first: str) -> None:
    """A deadline or cancellation from before the read of the byte too many comes first."""
    clock = MockClock()

    async def main() -> bool:
        with trio.CancelScope(deadline=trio.current_time() + 1) as scope:

            def when_read() -> None:
                if first == "deadline":
                    clock.jump(2)
                elif first == "cancelled":
                    scope.cancel()

            one = collected(Fed([b"12345"], when_read), 3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.read, nursery.cancel_scope)
        assert one.content.getvalue() == b"123"
        assert scope.cancelled_caught == (not one.too_long)
        return one.too_long

    assert trio.run(main, clock=clock) == (first == "too long")


def test_thrown_away_slowly() -> None:
    """Throwing away the output of a flooding program takes less than a processor: at most 64
    MiB/s."""
    fed = Fed([b"x"] * 100)

    before = time.monotonic()
    trio.run(_discard, cast(trio.abc.ReceiveStream, Plain(fed)))
    assert time.monotonic() - before >= 0.1
    assert fed.taken == 100


# ---- memory ------------------------------------------------------------------------

FLOOD = """
import json, resource, sys, trio
from supervisor import Bundle, OutputTooLarge, run_container

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

async def main():
    options = {"runtime": sys.argv[1], "capture_stdout": True, "capture_stderr": True}
    script = "trap 'exit 0' TERM; cat /dev/zero >&2 & cat /dev/zero & wait"
    bundle = Bundle.from_host(["sh", "-c", script], pids=10)
    # Also where it may not be raised again, a limit of ours is no hindrance.
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    await run_container(bundle, args=["true"], **options)
    before = peak()
    try:
        await run_container(bundle, **options)
    except OutputTooLarge as error:
        held = len(error.stdout) + len(error.stderr) >> 20
        print(json.dumps([error.limit >> 20, held, peak() - before]))

trio.run(main)
"""


@pytest.mark.runtimes("runc", "crun")
def test_memory(choice: Choice) -> None:
    """A flood on both streams costs what may be captured, and not a second time for a copy."""
    command = [sys.executable, "-c", FLOOD, choice.name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    limit, held, grown = json.loads(done.stdout)
    assert limit == 64
    assert limit <= held <= 2 * limit
    assert grown < held + 8
