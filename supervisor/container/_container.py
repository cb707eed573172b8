"""A container, as users see it. What the operations do is in the modules that they call."""

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
    """What an exec gets, and its streams: see `Supervisor.create`."""

    stdin: StdioArgument
    stdout: StdioArgument
    stderr: StdioArgument


class ExecRunOptions(ProgramOptions, CollectOptions, total=False):
    """What an exec gets that is run to its end, how it is fed and what is collected."""


@protected
class Container(Facts):
    """A container, made by `Supervisor.create` or adopted when a supervisor opens.

    ``async with container:`` deletes it, by force, at the end of the block, also when that was
    cancelled.

    Attributes:
        id: its id.
        init: its first `Process`.
    """

    async def __aenter__(self) -> Self:
        return self

    @undoing
    async def __aexit__(self, *_: object) -> None:
        if self._core.shared.opener.elsewhere():  # a forked child's block, of its parent's
            return
        with within(math.inf, shield=True):  # a delete has deadlines of its own
            await self.delete(force=True)

    # ---- start and exec -----------------------------------------------------------------

    @undoing
    async def start(self) -> None:
        """Let its init run the user's program.

        A program that ends before this returns has been started all the same.

        Raises:
            IllegalTransition: it isn't created and waiting; or it was deleted meanwhile, or killed
                before its program ran.
            ShimExited: its shim died first; the runtime's start was killed.
            ProgramNotFound, ProgramNotExecutable: the kernel refused the program; it has ended.
            RuntimeFailed, RuntimeTimeout: the runtime couldn't, and it is still created.
            RuntimeNotFound, DiskFull, TooManyFiles, TooManyProcesses: as they say; it is still
                created.
            ContainerLocked: another supervisor supervises it.

        Cancellation: the runtime's start is killed; the container is then what the runtime
        says that it is, created or running.
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
        """Run a further program in it, beside its init.

        It gets the process object of init (capabilities, limits, environment, ...) with what
        is given here in place of init's.

        Args:
            args: the program and its arguments.
            id: its id in the container; by default a random one.
            terminal: as for `Supervisor.create`.
            attach: whether you are attached to its terminal from the beginning. Nothing of its
                output is dropped: it is all in what the first `Process.attach` gives, and until
                you read that the program waits when it has put out too much.
            options: ``env``, ``cwd``, ``user``, ``group``, ``extra_groups`` and ``umask`` in place
                of init's (a user who is given has none of init's groups; the umask is init's, if
                that was said); ``stdin``, ``stdout`` and ``stderr`` as for `Supervisor.create`.

        Returns:
            The process, which runs. It is kept in ``processes``, and its directory on disk,
            until somebody has waited for its end. Of those that have ended, and that nobody
            waits for, the last 64 are kept.

        Raises:
            IllegalTransition: the container doesn't run, or ended meanwhile.
            InvalidValue: an argument can't work; nothing was touched.
            ProgramNotFound, ProgramNotExecutable: there is no such program or ``cwd`` inside, or
                it can't be run.
            RuntimeFailed: the runtime couldn't start it for another reason.
            CreateTimeout, ShimExited, ShimNotFound, DiskFull, TooManyFiles, TooManyProcesses:
                as they say; nothing is left.

        Cancellation: what was begun is killed and removed. After the return it lives on.
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
        """Run a further program in it to its end; to `exec` as `run_container` is to create.

        Args:
            args, id: as for `exec`.
            deliver_cancel: what is done in place of SIGTERM when it is cancelled, or ended: an
                async function that gets the process, and is cancelled as soon as that has ended.
                Whatever is done, it is killed if it still runs 5 seconds later, with a
                RuntimeWarning if that was for a cancellation.
            options: what the program gets, as for `exec`; how it is fed, what is collected,
                ``check`` and ``deadline``, as for `run_container`.

        Returns:
            How it ended, and what was captured.

        Raises:
            ProcessFailed: with ``check``, it didn't exit with 0; carries what was captured.
            DeadlineExpired: it ran longer than ``deadline``; carries what was captured until then.
            OutputTooLarge: it put out more than ``max_output_bytes``; carries what was captured.
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
        """SIGKILL all of its processes: everything in its cgroup.

        Raises:
            ProcessEnded: its init has ended, or it was deleted.
        """
        _stop.kill(self._core)

    @undoing
    async def stop(
        self,
        grace: float | None = None,
        *,
        ask_with: SignalArgument | Own = OWN,
    ) -> Stopped:
        """Ask its init to end, wait, and kill it if it doesn't. May be repeated.

        A program that runs as pid 1 gets only the signals that it has a handler for, or fetches
        (sigwait, signalfd): ``sleep`` ignores SIGTERM there, and is killed after ``grace``, unless
        its bundle has ``init=True``. One that isn't prepared yet is asked, once, when it is. What
        is left in its cgroup when it has ended is killed, also where it has no pid namespace.

        While it is asked, everybody's ``state`` of it is *stopping*. Should its caller be killed,
        the next open finishes this stop.

        Args:
            grace: how many seconds it is given; by default its own, ``stop_grace``.
            ask_with: the signal that asks it, by number or name; by default its own,
                ``stop_signal``.

        Returns:
            How it ended, and whether it had to be killed, by whomever; not of one that had ended.

        Raises:
            IllegalTransition: it is being made or deleted, or is broken.
            InvalidValue: ``grace`` is no number of seconds, or ``ask_with`` no signal.
            DeadlineExpired: it didn't even end after SIGKILL, within ``deadlines.kill``.

        Cancellation: it goes on if it hasn't ended yet.
        """
        return await _stop.stop(self._core, grace, ask_with)

    @undoing
    async def delete(self, *, force: bool = False) -> None:
        """Remove it, and everything that belongs to it. May be repeated.

        Args:
            force: whether a running one is killed first.

        Raises:
            IllegalTransition: it runs, and ``force`` is False.
            CleanupIncomplete: it couldn't be removed in time; it is listed in
                ``supervisor.broken``, and may be deleted again.
            ContainerLocked: another supervisor supervises it.

        Cancellation: once begun it is done to its end, or to its deadline.

        Crash: the next open finishes it.
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
        """Write its processes to the directory ``path``, for ``create(..., checkpoint=path)``.

        Args:
            path: a directory that is empty or isn't there yet.
            options: what CRIU has to be told.
            leave_running: whether they go on; else they end.

        Raises:
            IllegalTransition: it doesn't run.
            InvalidValue: the directory isn't empty or can't be made, or the container has a layer.
            RuntimeTimeout: it took longer than ``deadlines.create``.
            RuntimeFailed: the runtime or CRIU can't; says what CRIU said.
            ContainerLocked: another supervisor supervises it.

        Cancellation: the runtime is killed; what CRIU does then with the processes is its own.
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
