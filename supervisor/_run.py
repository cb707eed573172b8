"""`run_container`: a container for one program, created before and deleted afterwards."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Unpack

import trio

from ._open import open_supervisor
from ._supervisor import Supervisor
from .bundle import Bundle
from .container import Container
from .observers import name_suffix
from .running import (
    CollectOptions,
    Completed,
    InitOptions,
    deliver,
    run_options,
    stay,
    stubborn,
    warn,
    winding_up,
)
from .runtime import Runtime
from .tasks import forked, granted, undoing, within
from .values import (
    InvalidValue,
    ProcessEnded,
    State,
    check_kind,
    picked,
    require_known,
    signal_name,
)

DeliverCancel = Callable[[Container], Awaitable[None]]


class RunContainerOptions(InitOptions, CollectOptions, total=False):
    """The options of `run_container`: the container, the input and the collected output."""


@undoing
async def run_container(
    bundle: Bundle | str | os.PathLike[str],
    *,
    supervisor: Supervisor | None = None,
    runtime: str | os.PathLike[str] | Runtime | None = None,
    id: str | None = None,
    deliver_cancel: DeliverCancel | None = None,
    task_status: trio.TaskStatus[Container] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[RunContainerOptions],
) -> Completed:
    """Create a container, send the input, collect the output, wait for the end, and delete it.

    This works like `trio.run_process`. ``await nursery.start(run_container, bundle)`` returns the
    container as soon as the program runs. With ``nursery.start``, streams may be PIPE: the caller
    uses and closes ``stdin``, ``stdout`` and ``stderr`` of that container. All output can be read
    from them to the end, also after the container is deleted.

    Args:
        bundle: a `Bundle`, or the path of one.
        supervisor: the supervisor that creates the container; None for an ephemeral supervisor,
            opened for this call.
        runtime: as for `open_supervisor`; only without ``supervisor``.
        id: the container's id; by default a random one.
        deliver_cancel: called in place of the stop signal when the call is cancelled, or the
            program has to end: an async function that gets the container, and is cancelled as soon
            as the program has ended. Called only for a started program. A program that still runs
            after the stop grace is killed, with a RuntimeWarning if the reason was a cancellation.
        options: the program, as for `Supervisor.create`; the input, the collected output,
            ``check`` and ``deadline``: see `CollectOptions`.

    Returns:
        The exit status and the captured output. Output is read to the end, or until
        ``deadlines.drain`` after the program's end: ``held`` then names the processes that still
        hold the output open.

    Raises:
        ProcessFailed: with ``check``, the program didn't exit with 0; carries the output.
        DeadlineExpired: the program ran longer than ``deadline``; carries the output so far.
        OutputTooLarge: there was more output than ``max_output_bytes``; carries the output so far.
        InvalidValue: the arguments can't work together; nothing was touched.
        All that `Supervisor.create`, `Container.start` and `Container.delete` raise.

    Cancellation: the stop signal (SIGTERM), the stop grace (10 seconds), SIGKILL, delete, all
    shielded, each with a deadline.
    """
    require_known(options, RunContainerOptions, "run_container")
    wanted = run_options(
        started=task_status is not trio.TASK_STATUS_IGNORED,
        deliver_cancel=deliver_cancel,
        **picked(options, CollectOptions),
    )
    check_place(supervisor, runtime)
    async with borrowed(supervisor, runtime) as sup:
        box = await sup.create(
            f"run-{name_suffix()}" if id is None else id,
            bundle,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            **picked(options, InitOptions),
        )
        async with box:
            await _start(box, deliver_cancel)
            task_status.started(box)
            return await stay(
                box.init,
                wanted,
                check=options.get("check", True),
                deadline=options.get("deadline"),
                end=partial(_end, box, deliver_cancel),
            )


def check_place(supervisor: object, runtime: object) -> None:
    """Check that the caller gives a supervisor, or a runtime for a new supervisor, not both.

    Raises:
        InvalidValue: both are given, or ``supervisor`` is no supervisor.
    """
    if supervisor is not None:
        check_kind(supervisor, Supervisor, "supervisor")
    if supervisor is not None and runtime is not None:
        raise InvalidValue("give supervisor or runtime, not both: a supervisor has a runtime")


@contextlib.asynccontextmanager
async def borrowed(
    supervisor: Supervisor | None, runtime: str | os.PathLike[str] | Runtime | None
) -> AsyncIterator[Supervisor]:
    if supervisor is not None:
        yield supervisor
        return
    async with open_supervisor(runtime=runtime) as own:
        yield own


async def _start(box: Container, deliver_cancel: DeliverCancel | None) -> None:
    try:
        await box.start()
    except BaseException:
        warn(await _end(box, deliver_cancel))
        raise


async def _end(box: Container, deliver_cancel: DeliverCancel | None) -> RuntimeWarning | None:
    """Ask a running program to end, kill it after the grace, and return the warning for a kill."""
    runs = box.state in (State.RUNNING, State.STOPPING)
    if forked() or box.status is not None or not runs:
        return None
    killed = False
    with within(math.inf, shield=True):  # each step inside has a deadline
        async with winding_up(box.init):
            if deliver_cancel is None:
                killed = (await box.stop()).escalated
            else:
                with granted(box.stop_grace) as scope:
                    await deliver(deliver_cancel, box, box.init)
                killed = scope.cancelled_caught
    if not killed:
        return None
    with contextlib.suppress(ProcessEnded):
        box.kill()
    how = signal_name(box.stop_signal) if deliver_cancel is None else "deliver_cancel"
    return stubborn(box.init, box.stop_grace, how)
