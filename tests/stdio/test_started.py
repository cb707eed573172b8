"""``nursery.start``: the streams of what was started are the caller's, as with trio.run_process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from supervisor import (
    PIPE,
    Completed,
    Container,
    ContainerPool,
    InvalidValue,
    Process,
    ProcessFailed,
    Supervisor,
    run_container,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.streams import everything

Started = Container | Process


def program(
    kind: str, sup: Supervisor, box: Container, bundle: MakeBundle, script: str
) -> Callable[..., Any]:
    """Return a call that runs a shell's script: in a new container, or in a running one."""
    if kind == "container":
        return partial(run_container, bundle("sh", "-c", script), supervisor=sup)
    return partial(box.run, ["sh", "-c", script])


@pytest.fixture(params=["container", "exec"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of program: a new container's, or an exec."""
    return str(request.param)


async def test_talking_to_it(supervisor: OpenSupervisor, bundle: MakeBundle, kind: str) -> None:
    """A caller can talk to a program from ``nursery.start``; that was once refused."""
    script = "while read x; do echo got $x; echo err >&2; done"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, script)
        async with trio.open_nursery() as nursery:
            one: Started = await nursery.start(partial(run, stdin=PIPE, stdout=PIPE, stderr=PIPE))
            assert one.stdin is not None and one.stdout is not None
            for word in (b"one\n", b"two\n"):
                await one.stdin.send_all(word)
                assert await one.stdout.receive_some() == b"got " + word
            await one.stdin.aclose()
            assert await everything(one.stderr) == b"err\nerr\n"
            assert await everything(one.stdout) == b""


async def test_it_is_read_when_all_is_over(
    supervisor: OpenSupervisor, bundle: MakeBundle, kind: str
) -> None:
    """The stream has the program's output even after the container is deleted."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, "head -c 60000 /dev/zero")
        async with trio.open_nursery() as nursery:
            one: Started = await nursery.start(partial(run, stdin=PIPE, stdout=PIPE))
        assert list(sup) == ["a"] and list(box.processes) == ["init"]
        assert one.stdin is not None
        with pytest.raises(trio.BrokenResourceError):
            await one.stdin.send_all(b"x")
        await one.stdin.aclose()
    assert await everything(one.stdout) == bytes(60000)


async def test_what_is_captured_beside_it(
    supervisor: OpenSupervisor, bundle: MakeBundle, kind: str
) -> None:
    """A captured stream and a PIPE each give what was asked for."""
    results: list[Completed] = []
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, "cat; echo err >&2")

        async def keep(task_status: trio.TaskStatus[Started]) -> None:
            results.append(
                await run(stdin=PIPE, capture_stdout=True, stderr=PIPE, task_status=task_status)
            )

        async with trio.open_nursery() as nursery:
            one: Started = await nursery.start(keep)
            assert one.stdin is not None
            await one.stdin.send_all(b"words")
            await one.stdin.aclose()
            assert await everything(one.stderr) == b"err\n"
    assert results[0].stdout == b"words" and results[0].stderr is None


async def test_cancelling_it(supervisor: OpenSupervisor, bundle: MakeBundle, kind: str) -> None:
    """A cancelled program is asked to end; the caller alone reads and closes the streams."""
    script = "trap 'echo bye; exit 3' TERM; echo go; while :; do sleep 0.01; done"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, script)
        async with trio.open_nursery() as outer:
            heard = b""
            async with trio.open_nursery() as nursery:
                one: Started = await nursery.start(partial(run, stdin=PIPE, stdout=PIPE))
                assert one.stdin is not None and one.stdout is not None
                assert await one.stdout.receive_some() == b"go\n"

                async def read() -> None:
                    nonlocal heard
                    heard = await everything(one.stdout)

                outer.start_soon(read)
                nursery.cancel_scope.cancel()
        assert one.returncode == 3 and heard == b"bye\n"
        await one.stdin.aclose()


async def test_it_fails(supervisor: OpenSupervisor, bundle: MakeBundle, kind: str) -> None:
    """A failing program raises ProcessFailed; closing its output ends the program by SIGPIPE, or by
    a failed write for a pid 1."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, "while :; do echo y || exit 2; done")
        with (
            pytest.RaisesGroup(ProcessFailed)
            if hasattr(pytest, "RaisesGroup")
            else pytest.raises(BaseExceptionGroup) as caught
        ):
            async with trio.open_nursery() as nursery:
                one: Started = await nursery.start(partial(run, stdout=PIPE))
                assert one.stdout is not None
                await one.stdout.aclose()
        [error] = caught.value.exceptions
        assert isinstance(error, ProcessFailed)
        assert error.returncode == (2 if kind == "container" else -signal.SIGPIPE)


async def test_without_nursery_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, kind: str
) -> None:
    """PIPE without ``nursery.start`` is refused, with what to do, before anything is touched."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = program(kind, sup, box, bundle, "cat")
        for name in ("stdin", "stdout", "stderr"):
            with pytest.raises(InvalidValue, match=rf"{name}=PIPE: .*nursery\.start"):
                await run(**{name: PIPE})
        assert list(sup) == ["a"] and list(box.processes) == ["init"]


async def test_an_ephemeral_supervisor(bundle: MakeBundle, supervisor: OpenSupervisor) -> None:
    """The streams are the caller's beyond the supervisor that run_container has opened."""
    async with supervisor() as sup:
        told: dict[str, Any] = {"runtime": sup.runtime}
    async with trio.open_nursery() as nursery:
        run = partial(run_container, bundle("cat"), **told)
        box: Container = await nursery.start(partial(run, stdin=PIPE, stdout=PIPE))
        assert box.stdin is not None
        await box.stdin.send_all(b"words")
        await box.stdin.aclose()
    assert await everything(box.stdout) == b"words"


async def test_from_a_pool(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """`ContainerPool.run` has an input to give, too."""
    results: list[Completed] = []
    async with (
        supervisor() as sup,
        ContainerPool(bundle("true"), supervisor=sup, size=1) as pool,
    ):

        async def keep(task_status: trio.TaskStatus[Container]) -> None:
            results.append(await pool.run(["cat"], stdin=PIPE, task_status=task_status))

        async with trio.open_nursery() as nursery:
            box: Container = await nursery.start(keep)
            assert box.stdin is not None
            await box.stdin.send_all(b"words")
            await box.stdin.aclose()
        assert results[0].stdout == b"words"
        with pytest.raises(InvalidValue, match=r"stdin=PIPE: .*nursery\.start"):
            await pool.run(["cat"], stdin=PIPE)
