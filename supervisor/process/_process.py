"""`Process`: what users see of one process. `_task` and the modules below do the work."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable
from typing import final

import trio

from ..shim import resize_line
from ..spec import behind_init
from ..state import ProcessRecord
from ..stdio import InputStream, Logs, Since, TerminalSize, TerminalStream
from ..tasks import protected
from ..values import ContainerNotFound, ExitStatus, InvalidValue, ProcessState
from ._task import ProcessTask


@protected
class _Facts:
    """The attributes of a process.

    Attributes:
        container: the container's id.
        id: ``"init"``, or the exec's id.
    """

    def __init__(self, task: ProcessTask) -> None:
        self._task = task
        self.container: str = task.container
        self.id: str = task.id

    def __repr__(self) -> str:
        life = self._task.life
        launching = life.state is ProcessState.LAUNCHING
        now = "being launched" if launching else f"running, pid {self.pid}"
        end = self.status or life.failure or now
        program = (behind_init(self.args) or self.args)[0]
        return f"<supervisor.Process {self.container}/{self.id} {program!r}: {end}>"

    @property
    def record(self) -> ProcessRecord:
        """What ``process.json`` says."""
        return self._task.record

    @property
    def args(self) -> tuple[str, ...]:
        """The program and the arguments."""
        return self._task.args

    @property
    def pid(self) -> int | None:
        """The pid on the host; None before the launch, or if the pid couldn't be verified."""
        return self._task.pid

    @property
    def stdin(self) -> InputStream | None:
        """The standard input, if that is a PIPE. A close ends the program's input."""
        return self._task.streams.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """The standard output, if that is a PIPE. A close says that you don't read the rest."""
        return self._task.streams.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """The standard error, if that is a PIPE; as `stdout`."""
        return self._task.streams.stderr

    @property
    def stdio(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None:
        """Standard input and output as one stream, if both are PIPEs."""
        return self._task.streams.stdio

    @property
    def terminal(self) -> bool:
        """Whether the process has a terminal: see `attach`."""
        return self._task.record.terminal

    @property
    def status(self) -> ExitStatus | None:
        """How the process ended; None while it runs. Current without a turn of the loop.

        None also after a launch that failed: then `wait` and `poll` raise `LaunchFailed`.
        """
        return self._task.status

    @property
    def returncode(self) -> int | None:
        """The exit code; -N for signal N; 255 if unknown, see `status`; None while it runs."""
        status = self.status
        return None if status is None else status.returncode


@final
@protected
class Process(_Facts):
    """A process in a container: the init, or an exec beside the init.

    `Supervisor.create` and `Container.exec` make processes. A task in the supervisor's nursery owns
    each. Names and behaviour are those of `trio.Process`; but `wait` returns an `ExitStatus`, and
    a signal to an ended process raises `ProcessEnded`.

    Attributes:
        container: the container's id.
        id: ``"init"``, or the exec's id.
    """

    def poll(self) -> int | None:
        """Return `returncode`, as `trio.Process.poll`.

        Raises:
            LaunchFailed: the process was never launched: a loop would poll for ever.
        """
        self._task.life.require_possible()
        return self.returncode

    async def wait(self) -> ExitStatus:
        """Wait until the process has ended, even if others still hold the streams.

        Then an exec's id is free. Unread output stays in ``stdout`` and ``stderr``, or comes from
        `attach`, as long as you keep this object. (The id stays taken while other processes may
        still write to the log or to a copied stream, or an attached client hasn't read all.)

        Returns:
            The same status at every call.

        Raises:
            LaunchFailed: the process was never launched.
            SupervisorClosed: the supervisor closed while the process ran; or a forked child calls.

        Cancellation: the process goes on.
        """
        return await self._task.wait()

    async def wait_copied(self) -> ExitStatus:
        """Wait until the process has ended, and the output has reached the caller's own files.

        `wait` doesn't wait for output. This method does, for output that is copied to a file, pipe
        or socket of the caller's, as long as a reader takes some. Returns what `wait` returns.

        Raises:
            StreamFailed: the caller's file couldn't be read or written; or no reader has taken
                anything for ``deadlines.drain``, and the rest is given up.
            LaunchFailed, SupervisorClosed: as `wait`.

        Cancellation: the process goes on, and so does the copying.
        """
        status = await self.wait()
        delivery = self._task.delivery
        await delivery.wait()
        failure = delivery.failure(status)
        if failure is not None:
            delivery.asked = True
            raise failure
        return status

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal through the pidfd (or through the shim, if the pid isn't certain).

        PID 1 gets only SIGKILL and signals with a handler (man 7 pid_namespaces).

        Raises:
            InvalidValue: ``number`` is no signal, nor 0, which does nothing.
            ProcessEnded: the process has ended, or was never launched (`LaunchFailed`).
            IllegalTransition: the process is still being launched.
            ShimError: the pid isn't certain, and the shim takes no line; you may try again.
        """
        self._task.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM; as `send_signal`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; as `send_signal`."""
        self.send_signal(signal.SIGKILL)

    def close_stdin(self) -> None:
        """End the program's standard input, if that is a PIPE: the shim closes the fifo too.

        Raises:
            ProcessEnded, IllegalTransition: as `send_signal`.
            ShimError: the shim is stopped or stuck, and takes no line; you may try again.
        """
        self._task.life.require_launched("close the input")
        try:  # before the close: the process may end as soon as the input does
            self._task.require_alive("close the input")
            self._task.control.require()
        finally:
            self._task.streams.close_stdin()  # our end is closed in any case

    async def attach(self) -> TerminalStream:
        """Attach to the terminal: raw bytes both ways, for one client at a time.

        Closing the stream detaches; the process goes on. While no client is attached, the last
        64 KiB of output are kept for the next one; ``stream.dropped`` counts older bytes, which
        are dropped. An attached client that doesn't read blocks the program's output. The first
        stream of an exec with ``attach=True`` has all of the output.

        Raises:
            InvalidValue: the process has no terminal.
            AlreadyAttached: a client is attached, perhaps another program.
            ProcessEnded: the process has ended, and all output was read; or was never launched
                (`LaunchFailed`).
            IllegalTransition: the process is still being launched.
            TooManyFiles: no descriptor was left.

        Cancellation: no client is attached.
        """
        self._require_terminal()
        self._task.life.require_launched("attach")
        return await self._task.terminal.attach(self._task.control.require)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal; the foreground processes get SIGWINCH.

        Raises:
            InvalidValue: the process has no terminal, or a terminal can't have this size.
            ProcessEnded, IllegalTransition, ShimError: as `close_stdin`.
        """
        self._require_terminal()
        size = TerminalSize(columns, rows)
        self._task.require_alive("resize")
        self._task.control.send(resize_line(size.columns, size.rows))

    def hang_up(self) -> None:
        """Hang up the terminal: the session gets SIGHUP, and later reads and writes fail.

        Raises:
            InvalidValue: the process has no terminal.
            ProcessEnded, IllegalTransition, ShimError: as `close_stdin`.
        """
        self._require_terminal()
        self._task.require_alive("hang up")
        self._task.streams.close_stdin()

    def logs(
        self,
        *,
        follow: bool = False,
        since: Since = None,
        until: Since = None,
        tail: int | None = None,
        after: str | None = None,
    ) -> Logs:
        """Read the log: an async iterator of `LogRecord`, the oldest first.

        Args:
            follow: wait for more, across rotations, until the process has ended and all was read;
                ``deadlines.drain`` longer if other processes still hold the output then.
            since: a `datetime.datetime` (one without a zone is local time), seconds since 1970, or
                nanoseconds, as an int of 10**12 or more. Older records are left out.
            until: the same; later records are left out. Following ends at that time.
            tail: begin with the last ``tail`` lines; each may be several records.
            after: begin behind the record with this `LogRecord.cursor`, which any reader may have
                read at any time. `Logs.gaps` tells whether the next records are lost.

        Raises:
            InvalidValue: no log, a bad argument, or a later process with this id has a log by now.
            ContainerNotFound: the container was deleted, and the log with it.
            LaunchFailed: the process was never launched.
        """
        task = self._task
        task.life.require_possible()
        specs = (task.record.stdout, task.record.stderr)
        if not any(spec is not None and spec.startswith("log:") for spec in specs):
            raise InvalidValue(
                f"the output of {self.container}/{self.id} doesn't go to a log: "
                "create or exec with stdout=LOG"
            )
        if not task.group.has_container():
            raise ContainerNotFound(
                "it was deleted, and its logs with it", container=self.container
            )
        if not task.log.is_there():
            raise InvalidValue(
                f"the log of {self.container}/{self.id} belongs to a later process with this id"
            )
        return Logs(
            task.layout.output_log,
            index=task.layout.log_index,
            is_there=task.log.is_there,
            follow=follow,
            since=since,
            until=until,
            tail=tail,
            after=after,
            is_complete=task.end.is_output_complete,
            wait_complete=task.end.wait_output_complete,
        )

    def _require_terminal(self) -> None:
        if not self._task.record.terminal:
            raise InvalidValue(
                f"{self.container}/{self.id} has no terminal: create or exec it with terminal=True"
            )


def process_of(task: ProcessTask) -> Process:
    """Return a task's one `Process` for users."""
    # A weak reference: otherwise task and `Process` would hold each other, and an exec's streams,
    # until the garbage collection.
    process: Process | None = None if task.shown is None else task.shown()
    if process is None:
        process = Process(task)
        task.shown = weakref.ref(process)
    return process


def task_of(process: Process) -> ProcessTask:
    """Return the task of a process, for the library's own modules."""
    return process._task


async def ask(
    process: Process, number: int, *, sent: Callable[[], None] = lambda: None
) -> ExitStatus:
    """Send a signal when the process would act on it, call ``sent``, and wait for the exit status.

    Raises:
        ProcessEnded: the process has ended.
    """
    await process._task.gate.prepared(number)
    process.send_signal(number)  # the public method: our users' tests replace it
    sent()
    return await process.wait()
