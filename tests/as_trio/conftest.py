"""Programs in containers, run by functions with the arguments of `trio.run_process` and
`open_process`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from supervisor import (
    Bundle,
    Completed,
    Container,
    Process,
    ProcessEnded,
    Supervisor,
    run_container,
)
from tests.as_trio.programs import Programs
from tests.conftest import MakeBundle, OpenSupervisor

KINDS = ("exec", "init", "behind an init")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def programs(kind: str, supervisor: OpenSupervisor, bundle: MakeBundle) -> Callable[[], Any]:
    """Open a supervisor, and give the programs that run there."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Programs]:
        async with supervisor() as sup:
            started: list[Process] = []
            try:
                if kind == "exec":
                    async with await sup.create("box", bundle("sleep", "600")) as box:
                        await box.start()
                        yield _beside(box, started)
                else:
                    spec = bundle("sleep", "600", init=kind == "behind an init")
                    yield _alone(sup, spec, started)
            finally:
                for process in started:
                    await _close(process)

    return opened


def _beside(box: Container, started: list[Process]) -> Programs:
    @asynccontextmanager
    async def open_process(args: list[str], **options: Any) -> AsyncIterator[Process]:
        process = await box.exec(args, **options)
        try:
            yield process
        finally:
            await _end(process)

    async def run(
        args: list[str],
        *,
        task_status: trio.TaskStatus[Process] = trio.TASK_STATUS_IGNORED,
        **options: Any,
    ) -> Completed:
        return await box.run(args, task_status=_noting(task_status, started), **options)

    return Programs(open=open_process, run=run)


def _noting(task_status: Any, started: list[Process]) -> Any:
    """Keep what is started, so that the streams, which are ours, can be closed."""
    if task_status is trio.TASK_STATUS_IGNORED:
        return task_status

    class Noting:
        def started(self, value: Process | Container) -> None:
            process = value.init if isinstance(value, Container) else value
            started.append(process)
            task_status.started(process)

    return Noting()


async def _close(process: Process) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _alone(sup: Supervisor, made: Bundle, started: list[Process]) -> Programs:
    numbers = itertools.count()

    @asynccontextmanager
    async def open_process(args: list[str], **options: Any) -> AsyncIterator[Process]:
        async with await sup.create(f"alone-{next(numbers)}", made, args=args, **options) as box:
            await box.start()
            try:
                yield box.init
            finally:
                await _end(box.init)

    async def run(
        args: list[str],
        *,
        deliver_cancel: Callable[[Process], Awaitable[None]] | None = None,
        task_status: trio.TaskStatus[Process] = trio.TASK_STATUS_IGNORED,
        **options: Any,
    ) -> Completed:
        async def deliver(box: Container) -> None:
            assert deliver_cancel is not None
            await deliver_cancel(box.init)

        return await run_container(
            made,
            supervisor=sup,
            args=args,
            deliver_cancel=None if deliver_cancel is None else deliver,
            task_status=_noting(task_status, started),
            **options,
        )

    return Programs(open=open_process, run=run)


async def _end(process: Process) -> None:
    with trio.CancelScope(shield=True):
        with contextlib.suppress(ProcessEnded):
            process.kill()
        await process.wait()
