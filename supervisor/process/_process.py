"""One process, as users see it. What is done with it is in `_task` and the modules below it."""

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
from ..values import ContainerNotFound, ExitStatus, InvalidValue
from ._task import ProcessTask


@final
@protected
class Process:
    """A process in a container: its init, or an exec beside it.

    It is made by `Supervisor.create` and `Container.exec`, and owned by a task in the
    supervisor's nursery. Names and behaviour are those of `trio.Process`; but `wait` returns an
    `ExitStatus`, and a signal after the end raises `ProcessEnded`.

    Attributes:
        container: the container's id.
        id: ``"init"``, or the exec's id.
    """

    def __init__(self, task: ProcessTask) -> None:
        self._task = task
        self.container: str = task.container
        self.id: str = task.id

    def __repr__(self) -> str:
        status = self.status
        end = f"running, pid {self.pid}" if status is None else str(status)
        program = (behind_init(self.args) or self.args)[0]
        return f"<supervisor.Process {self.container}/{self.id} {program!r}: {end}>"

    # ---- what it is ---------------------------------------------------------------------

    @property
    def record(self) -> ProcessRecord:
        """Its ``process.json``."""
        return self._task.record

    @property
    def args(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return self._task.args

    @property
    def pid(self) -> int | None:
        """Its pid on the host; None before it is made, or if it couldn't be verified."""
        return self._task.pid

    @property
    def stdin(self) -> InputStream | None:
        """Its standard input, if that is a PIPE. Closing it is the end of its input."""
        return self._task.streams.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """Its standard output, if that is a PIPE. Closing it says that nobody reads the rest."""
        return self._task.streams.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """Its standard error, if that is a PIPE; as `stdout`."""
        return self._task.streams.stderr

    @property
    def stdio(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None:
        """Its standard input and output as one stream, if both are PIPEs."""
        return self._task.streams.stdio

    @property
    def terminal(self) -> bool:
        """Whether it has a terminal: see `attach`."""
        return self._task.record.terminal

    # ---- for users ----------------------------------------------------------------------

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs. True at once, without a turn of the loop."""
        return self._task.status

    @property
    def returncode(self) -> int | None:
        """As `trio.Process.returncode`: the exit code, -N for signal N; None while it runs.

        255 if nobody knows how it ended; `status` says why. True at once, as `status`.
        """
        status = self.status
        return None if status is None else status.returncode

    def poll(self) -> int | None:
        """Return `returncode`, as `trio.Process.poll`."""
        return self.returncode

    async def wait(self) -> ExitStatus:
        """Wait until it has ended, whoever still holds its streams.

        An exec is done with then: its id is free, and what is unread is in ``stdout`` and
        ``stderr``, or comes from `attach`, for as long as you have this process in hand. (Its id
        stays taken while others in the container may still write to its log, or to what is
        copied, or while somebody is attached who hasn't read all.)

        Returns:
            The same status to everybody, as often as asked.

        Raises:
            SupervisorClosed: its supervisor was closed before it ended; or this is a forked child.

        Cancellation: the process goes on.
        """
        return await self._task.wait()

    async def wait_copied(self) -> ExitStatus:
        """Wait until it has ended, and what it wrote is where it goes, if that is the caller's.

        `wait` tells of the end whoever takes the output. What is copied to a file, a pipe or a
        socket of the caller's is waited for here for as long as somebody takes it.

        Returns:
            How it ended, as `wait`.

        Raises:
            StreamFailed: the caller's file couldn't be read or written; or nobody has taken
                anything for ``deadlines.drain``, and the rest is given up.
            SupervisorClosed: as `wait`.

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
        """Send it a signal, through its pidfd (or its shim, where its pid isn't certain).

        A pid 1 gets only signals that it has a handler for, and SIGKILL (man 7 pid_namespaces).

        Raises:
            InvalidValue: ``number`` is no signal, nor 0, which does nothing.
            ProcessEnded: it has ended.
            ShimError: its pid isn't certain, and its shim takes no line; it may be repeated.
        """
        self._task.send_signal(number)

    def terminate(self) -> None:
        """Send it SIGTERM; as `send_signal`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL; as `send_signal`."""
        self.send_signal(signal.SIGKILL)

    def close_stdin(self) -> None:
        """End its standard input, if that is a PIPE: the shim lets go of the fifo too.

        Raises:
            ProcessEnded: it has ended.
            ShimError: its shim is stopped, or stuck, and takes no line; it may be repeated.
        """
        try:  # before: it may end as soon as its input does
            self._task.require_alive()
            self._task.control.require()
        finally:
            self._task.streams.close_stdin()  # our end is closed in any case

    # ---- its terminal and its log ----------------------------------------------------------

    async def attach(self) -> TerminalStream:
        """Attach to its terminal: raw bytes both ways. One at a time.

        Detaching, by closing the stream, leaves the process running. While nobody is attached
        the last 64 KiB of its output are kept for the next one, and older ones are dropped,
        counted in ``stream.dropped``; somebody who is attached and doesn't read stops it.
        What an exec with ``attach=True`` gives the first time has all of its output.

        Raises:
            InvalidValue: it has no terminal.
            AlreadyAttached: somebody is attached, perhaps another program.
            ProcessEnded: it has ended, and all its output was read.
            TooManyFiles: no descriptor was left.

        Cancellation: nobody is attached.
        """
        self._require_terminal()
        return await self._task.terminal.attach(self._task.control.require)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal; the foreground processes get SIGWINCH.

        Raises:
            InvalidValue: it has no terminal, or can't have this size.
            ProcessEnded: it has ended.
            ShimError: its shim is stopped, or stuck, and takes no line; it may be repeated.
        """
        self._require_terminal()
        size = TerminalSize(columns, rows)
        self._task.require_alive()
        self._task.control.send(resize_line(size.columns, size.rows))

    def hang_up(self) -> None:
        """Hang up its terminal: its session gets SIGHUP, and reads and writes fail from then on.

        Raises:
            InvalidValue: it has no terminal.
            ProcessEnded: it has ended.
            ShimError: its shim is stopped, or stuck, and takes no line; it may be repeated.
        """
        self._require_terminal()
        self._task.require_alive()
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
        """Read its log: an async iterator of `LogRecord`, the oldest first.

        Args:
            follow: wait for more, across rotations, until it has ended and all was read. If
                somebody else still holds its output then, that is ``deadlines.drain`` later.
            since: a `datetime.datetime` (one without a zone is local time), seconds since 1970, or
                nanoseconds, as an int of 10**12 or more; older ones are left out.
            until: the same; later ones are left out. Following ends at that time.
            tail: begin with the last so many lines, in however many records each is.
            after: begin behind the record that has this `LogRecord.cursor`, whoever read it and
                when. `Logs.gaps` tells whether something that came next is lost.

        Raises:
            InvalidValue: its output doesn't go to a log, or an argument can't work; or a later
                process of the same id has a log by now.
            ContainerNotFound: its container was deleted, and its log with it.
        """
        task = self._task
        specs = (task.record.stdout, task.record.stderr)
        if not any(spec is not None and spec.startswith("log:") for spec in specs):
            raise InvalidValue(
                f"the output of {self.container}/{self.id} doesn't go to a log: "
                "create or exec it with stdout=LOG"
            )
        if not task.group.has_container():
            raise ContainerNotFound(
                "it was deleted, and its logs with it", container=self.container
            )
        if not task.log.is_there():
            raise InvalidValue(
                f"the log of {self.container}/{self.id} is that of a later process of this id"
            )
        return Logs(
            task.layout.output_log(),
            index=task.layout.log_index(),
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
    """Return the one `Process` that users have of a task."""
    # Weak: else they would hold each other, and an exec's streams, until the garbage is collected.
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
    """Send a signal as soon as it would be acted on, call ``sent``, and wait for the end.

    Raises:
        ProcessEnded: it has ended.
    """
    await process._task.gate.prepared(number)
    process.send_signal(number)  # the public one: tests of our users put another in its place
    sent()
    return await process.wait()
