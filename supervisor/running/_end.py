"""Ask a program to end, wait, and kill a program that doesn't end."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import trio

from ..process import Process, ask, task_of
from ..spec import behind_init
from ..tasks import background_nursery, granted, nap, shielded
from ..values import ProcessEnded, ShimError

GRACE_SECONDS = 5.0
_PAUSE_SECONDS: Final = 0.001

T = TypeVar("T")


@contextlib.asynccontextmanager
async def winding_up(process: Process) -> AsyncIterator[None]:
    """While a program is asked to end: close the input, and read and discard the last output.

    Without that, a program could block on its output. Streams that were handed over to the caller
    are left alone.
    """
    own_input, outputs = task_of(process).streams.own_ends()
    if own_input is not None:
        with contextlib.suppress(ProcessEnded, ShimError):
            process.close_stdin()
    async with background_nursery() as nursery:
        for stream in outputs:
            nursery.start_soon(_discard, stream, name=f"{task_of(process).task_name}: output")
        yield


async def end_process(
    process: Process, deliver_cancel: Callable[[Process], Awaitable[None]] | None
) -> RuntimeWarning | None:
    """Ask, wait, kill, wait, shielded, with deadlines; return a warning after a kill."""
    try:
        with granted(GRACE_SECONDS, shield=True):
            async with winding_up(process):
                await deliver(deliver_cancel or _ask, process, process)
    finally:
        killed = process.status is None
        if killed:
            with contextlib.suppress(ProcessEnded, ShimError):
                process.kill()
            with shielded(task_of(process).deadlines.kill):
                await process.wait()
        task_of(process).streams.abandon()
    how = "SIGTERM" if deliver_cancel is None else "deliver_cancel"
    return stubborn(process, GRACE_SECONDS, how) if killed else None


async def deliver(
    deliver_cancel: Callable[[T], Awaitable[None]], target: T, process: Process
) -> None:
    """Call ``deliver_cancel``, and wait until the program has ended; then cancel that call.

    ``ProcessEnded`` is ignored, as in `trio.run_process`: a second signal may come too late.

    Raises: what ``deliver_cancel`` raises, unchanged.
    """
    raised: list[BaseException] = []
    async with background_nursery() as nursery:

        @trio.lowlevel.enable_ki_protection
        async def ask() -> None:
            try:
                await deliver_cancel(target)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                told = _but(error, (ProcessEnded, trio.Cancelled))
                if told is not None:
                    raised.append(told)
                    nursery.cancel_scope.cancel()

        nursery.start_soon(ask, name=f"{task_of(process).task_name}: deliver_cancel")
        await process.wait()
    if raised:
        raise raised.pop()


def _but(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    """Return an error, or what is left of a nursery's group, without errors of these kinds."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1]
    return None if isinstance(error, kinds) else error


def stubborn(process: Process, seconds: float, how: str) -> RuntimeWarning:
    """Return the warning for a program that was asked to end, didn't, and was killed."""
    behind = behind_init(process.args)
    message = (
        f"the program {(behind or process.args)[0]!r} ({process.container}/{process.id}) ignored "
        f"{how} for {seconds:g} seconds, and was killed"
    )
    if not process.record.exec and behind is None:
        message += (
            ". As pid 1 the program gets only signals that it has a handler for: use a bundle with "
            "init=True, or another deliver_cancel"
        )
    return RuntimeWarning(message)


def warn(warning: RuntimeWarning | None) -> None:
    """Issue a warning, if there is one."""
    if warning is not None:
        warnings.warn(warning, stacklevel=2)


async def _ask(process: Process) -> None:
    await ask(process, signal.SIGTERM)


@trio.lowlevel.enable_ki_protection
async def _discard(stream: trio.abc.ReceiveStream) -> None:
    with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        async for _ in stream:
            # 64 MiB/s: a program that floods us until the kill mustn't use up a processor.
            await nap(_PAUSE_SECONDS, still=False)
