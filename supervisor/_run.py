"""Run a program in a container that is made for it, and deleted after it."""

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
from .tasks import forked, granted, name_suffix, undoing, within
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
    """What `run_container` makes of a bundle, feeds and collects."""


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
    """Make a container, feed it, collect its output, wait for its end, delete it.

    In the manner of `trio.run_process`. ``await nursery.start(run_container, bundle)`` gives the
    container as soon as its program runs. So started, streams may be PIPE: they are in what is
    given (``stdin``, ``stdout``, ``stderr``), and the caller's to use and to close. What the
    program has written can be read from them to its end, also when the container is deleted.

    Args:
        bundle: a `Bundle`, or the path of one.
        supervisor: whose container it shall be; None for an ephemeral one of its own.
        runtime: as for `open_supervisor`; only without ``supervisor``.
        id: the container's id; by default a random one.
        deliver_cancel: what is done in place of its stop signal when it is cancelled, or ended: an
            async function that gets the container, and is cancelled as soon as the program has
            ended. Only for a program that was started. Whatever is done, it is killed if it still
            runs after its stop grace, with a RuntimeWarning if that was for a cancellation.
        options: what its program gets, as for `Supervisor.create`; how it is fed, what is
            collected, ``check`` and ``deadline``: see `CollectOptions`.

    Returns:
        How it ended, and what was captured. Output is read until its end, or until
        ``deadlines.drain`` after the program's: who holds it still is named in ``held``.

    Raises:
        ProcessFailed: with ``check``, it didn't exit with 0; carries what was captured.
        DeadlineExpired: it ran longer than ``deadline``; carries what was captured until then.
        OutputTooLarge: it put out more than ``max_output_bytes``; carries what was captured.
        InvalidValue: the arguments don't go together; nothing was touched.
        All that `Supervisor.create`, `Container.start` and `Container.delete` raise.

    Cancellation: its stop signal (SIGTERM), its stop grace (10 seconds), SIGKILL, delete, all
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
    """Check where containers are to be made: in a supervisor, or in one of its own, by a runtime.

    Raises:
        InvalidValue: both are given, or another thing than a supervisor.
    """
    if supervisor is not None:
        check_kind(supervisor, Supervisor, "supervisor")
    if supervisor is not None and runtime is not None:
        raise InvalidValue("supervisor and runtime don't go together: a supervisor has its own")


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
    """Ask it to end, if its program runs, and kill it if it doesn't: return what to say then."""
    runs = box.state in (State.RUNNING, State.STOPPING)
    if forked() or box.status is not None or not runs:
        return None
    killed = False
    with within(math.inf, shield=True):  # what is done there has its deadlines
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
