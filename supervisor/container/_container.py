"""The public `Container`; each operation's work is in the module that the method calls."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, Unpack

import trio

from ..process import Process, process_of
from ..rootfs import AccountOptions, check_account
from ..running import CollectOptions, Completed, ProgramOptions, end_process, run_options, stay
from ..spec import SignalArgument
from ..stdio import StdioArgument, TerminalArgument
from ..tasks import protected, undoing, within
from ..values import check_flag, check_kind, check_path, picked, require_known
from . import _delete, _exec, _start, _stop
from ._checkpoint import CheckpointOptions, checkpoint
from ._core import Core
from ._facts import Facts
from ._stop import OWN, Own, Stopped


class ExecOptions(ProgramOptions, total=False):
    """The program and the streams of an exec: see `Supervisor.create`."""

    stdin: StdioArgument
    stdout: StdioArgument
    stderr: StdioArgument


class ExecRunOptions(ProgramOptions, CollectOptions, total=False):
    """The program, the input and the collected output of an exec that is run to the end."""


@protected
class Container(Facts):
    """A container, made by `Supervisor.create` or adopted when a supervisor opens.

    ``async with container:`` deletes the container, by force, at the end of the block, also when
    the block was cancelled.

    Attributes:
        id: the container's id.
        init: the container's first `Process`.
    """

    async def __aenter__(self) -> Self:
        return self

    @undoing
    async def __aexit__(self, *_: object) -> None:
        if self._core.shared.opener.elsewhere():  # in a forked child the container isn't ours
            return
        with within(math.inf, shield=True):  # a delete has deadlines of its own
            await self.delete(force=True)

    # ---- start and exec -----------------------------------------------------------------

    @undoing
    async def start(self) -> None:
        """Let the container's init run the user's program.

        A program that ends before this returns counts as started.

        Raises:
            IllegalTransition: the container isn't *created*; or was deleted meanwhile, or killed
                before the program ran.
            ShimExited: the shim died first; the runtime's start was killed.
            ProgramNotFound, ProgramNotExecutable: the kernel refused the program; init has ended.
            RuntimeFailed, RuntimeTimeout: the runtime failed; the container is still *created*.
            RuntimeNotFound, DiskFull, TooManyFiles, TooManyProcesses: see each; the container is
                still *created*.
            ContainerLocked: another supervisor owns the container.

        Cancellation: the runtime's start is killed; the container is then *created* or *running*,
        as the runtime reports.
        """
        await _start.start(self._core)

    @undoing
    async def exec(
        self,
        args: Sequence[str],
        *,
        id: str | None = None,
        terminal: TerminalArgument = False,
        attach: bool = False,
        **options: Unpack[ExecOptions],
    ) -> Process:
        """Run a further program in the container, beside the init.

        The program gets init's process object (capabilities, limits, environment, ...); the
        arguments given here replace init's values.

        Args:
            args: the program and the program's arguments.
            id: the process's id in the container; by default a random one.
            terminal: as for `Supervisor.create`.
            attach: whether the caller is attached to the terminal from the beginning. Then no
                output is dropped: the first `Process.attach` returns a stream with all output.
                Until the caller reads, a program that has written too much waits.
            options: ``env``, ``cwd``, ``user``, ``group``, ``extra_groups`` and ``umask`` replace
                init's (a given user has none of init's groups; the umask is init's, if one
                was set); ``stdin``, ``stdout`` and ``stderr`` as for `Supervisor.create`.

        Returns:
            The running process. The process stays in ``processes``, and its directory on disk,
            until a caller has waited for its exit status. Of the ended processes that no caller
            waits for, the last 64 are kept.

        Raises:
            IllegalTransition: the container isn't running, or ended meanwhile.
            InvalidValue: an argument can't work; nothing was touched.
            ProgramNotFound, ProgramNotExecutable: there is no such program or ``cwd`` inside, or
                the program can't be run.
            RuntimeFailed: the runtime couldn't start the program for another reason.
            CreateTimeout, ShimExited, ShimNotFound, DiskFull, TooManyFiles, TooManyProcesses:
                see each; nothing is left.

        Cancellation: a started exec is killed and removed. After the return the process lives on.
        """
        require_known(options, ExecOptions, "exec")
        task = await _exec.exec(
            self._core,
            args,
            id=id,
            env=options.get("env"),
            cwd=options.get("cwd"),
            account=check_account(**picked(options, AccountOptions)),
            stdin=options.get("stdin"),
            stdout=options.get("stdout"),
            stderr=options.get("stderr"),
            terminal=terminal,
            attach=attach,
        )
        return process_of(task)

    @undoing
    async def run(
        self,
        args: Sequence[str],
        *,
        id: str | None = None,
        deliver_cancel: Callable[[Process], Awaitable[None]] | None = None,
        task_status: trio.TaskStatus[Process] = trio.TASK_STATUS_IGNORED,
        **options: Unpack[ExecRunOptions],
    ) -> Completed:
        """Run a further program in the container to the end, as `run_container` runs a container.

        Args:
            args, id: as for `exec`.
            deliver_cancel: called in place of SIGTERM when the call is cancelled, or the program
                has to end: an async function that gets the process, and is cancelled as soon as
                the process has ended. A process that still runs 5 seconds later is killed, with a
                RuntimeWarning if the reason was a cancellation.
            options: the program, as for `exec`; input, collected output, ``check`` and
                ``deadline``, as for `run_container`.

        Returns:
            The exit status and the captured output.

        Raises:
            ProcessFailed: with ``check``, the exit code wasn't 0; carries the output.
            DeadlineExpired: the program ran longer than ``deadline``; carries the output so far.
            OutputTooLarge: there was more than ``max_output_bytes``; carries the output so far.
            All that `exec` raises.

        Cancellation: SIGTERM, 5 seconds, SIGKILL, all shielded, each with a deadline.
        """
        require_known(options, ExecRunOptions, "run")
        wanted = run_options(
            started=task_status is not trio.TASK_STATUS_IGNORED,
            deliver_cancel=deliver_cancel,
            **picked(options, CollectOptions),
        )
        process = await self.exec(
            args,
            id=id,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr,
            **picked(options, ProgramOptions),
        )
        task_status.started(process)
        return await stay(
            process,
            wanted,
            check=options.get("check", True),
            deadline=options.get("deadline"),
            end=lambda: end_process(process, deliver_cancel),
        )

    def kill(self) -> None:
        """SIGKILL all processes of the container: everything in the container's cgroup.

        Raises:
            ProcessEnded: the init has ended, or the container was deleted.
        """
        _stop.kill(self._core)

    @undoing
    async def stop(
        self,
        grace: float | None = None,
        *,
        ask_with: SignalArgument | Own = OWN,
    ) -> Stopped:
        """Ask the init to end, wait, and kill it after the grace. May be repeated.

        A program that runs as pid 1 gets only signals that it handles or fetches (sigwait,
        signalfd): ``sleep`` ignores SIGTERM there, and is killed after ``grace``, unless the
        bundle has ``init=True``. A program without handlers yet is asked, once, when they are
        there. When init has ended, the rest of the cgroup is killed, also without a pid namespace.

        During the stop, every supervisor shows the state *stopping*. If the caller is killed, the
        next open finishes the stop.

        Args:
            grace: how many seconds init has; by default the container's ``stop_grace``.
            ask_with: the signal that asks, by number or name; by default the container's
                ``stop_signal``.

        Returns:
            The exit status, and whether init had to be killed, by any supervisor (not set for an
            init that had ended before).

        Raises:
            IllegalTransition: the container is being made or deleted, or is broken.
            InvalidValue: ``grace`` is no number of seconds, or ``ask_with`` no signal.
            DeadlineExpired: init didn't end within ``deadlines.kill`` after SIGKILL.

        Cancellation: an init that hasn't ended yet goes on.
        """
        return await _stop.stop(self._core, grace, ask_with)

    @undoing
    async def delete(self, *, force: bool = False) -> None:
        """Remove the container, and everything that belongs to the container. May be repeated.

        Args:
            force: whether a running container is killed first.

        Raises:
            IllegalTransition: the container is running, and ``force`` is False.
            CleanupIncomplete: the container couldn't be removed in time; it is listed in
                ``supervisor.broken``, and may be deleted again.
            ContainerLocked: another supervisor owns the container.

        Cancellation: a delete that has begun runs to the end, or to the deadline.

        Crash: the next open finishes the delete.
        """
        await _delete.delete(self._core, force=check_flag(force, "force"))

    @undoing
    async def checkpoint(
        self,
        path: str | os.PathLike[str],
        *,
        options: CheckpointOptions | None = None,
        leave_running: bool = False,
    ) -> None:
        """Write all processes to the directory ``path``, for ``create(..., checkpoint=path)``.

        Args:
            path: an empty directory, or one that doesn't exist yet.
            options: the options for CRIU.
            leave_running: whether the processes go on; else they end.

        Raises:
            IllegalTransition: the container isn't running.
            InvalidValue: the directory isn't empty or can't be made, or the container has a layer.
            RuntimeTimeout: the checkpoint took longer than ``deadlines.create``.
            RuntimeFailed: the runtime or CRIU failed; quotes CRIU.
            ContainerLocked: another supervisor owns the container.

        Cancellation: the runtime is killed; CRIU decides whether the processes go on or end.
        """
        options = CheckpointOptions() if options is None else options
        await checkpoint(
            self._core,
            check_path(path, "path"),
            check_kind(options, CheckpointOptions, "options"),
            leave_running=check_flag(leave_running, "leave_running"),
        )


def core_of(container: Container) -> Core:
    """Return a container's core, for the library's own modules."""
    return container._core
