"""One shimmed process, as users see it. The task that owns it is in `_task`."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from typing import Final

import trio

from ..shim import resize_line, signal_line
from ..spec import behind_init
from ..stdio import InputStream, LogIndex, Logs, Since, TerminalSize, TerminalStream
from ..system import real_time
from ..tasks import protected, within
from ..values import ContainerNotFound, ExitStatus, InvalidValue, ProcessEnded, SupervisorClosed
from ._pid1 import hears
from ._task import ProcessTask

GATE_SECONDS: Final = 0.5  # from the runtime's start to the program; who looks on may mistake it
_LEAST_POLL_SECONDS: Final = 0.002
_MOST_POLL_SECONDS: Final = 0.05
_BLOCKED_LOOKS: Final = 7  # in a row; at least 0.1 seconds: no start of a program takes that long


def check_signal(number: object, name: str, *, container: str, least: int = 1) -> None:
    """Raise InvalidValue, which names the argument, for what is no signal's number."""
    fits = isinstance(number, int) and not isinstance(number, bool)
    if not fits or number not in range(least, signal.NSIG):
        raise InvalidValue(
            f"{name} must be a signal, {least} to {signal.NSIG - 1}, not {number!r}",
            container=container,
        )


@protected
class Process(ProcessTask):
    """A process in a container: its init, or an exec beside it.

    It is made by `Supervisor.create` and `Container.exec`, and owned by a task in the
    supervisor's nursery. Names and behaviour are those of `trio.Process`; but `wait` returns an
    `ExitStatus`, and a signal after the end raises `ProcessEnded`.

    Attributes:
        container: the container's id.
        id: ``"init"``, or the exec's id.
        record: its `ProcessRecord`.
        args: the program and its arguments, a tuple of str.
        pid: its pid on the host; None before it is made, or if it couldn't be verified.
    """

    _log_name: str | None = None

    @property
    def stdin(self) -> InputStream | None:
        """Its standard input, if that is a PIPE. Closing it is the end of its input."""
        return self._streams.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """Its standard output, if that is a PIPE. Closing it says that nobody reads the rest."""
        return self._streams.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """Its standard error, if that is a PIPE; as `stdout`."""
        return self._streams.stderr

    @property
    def stdio(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None:
        """Its standard input and output as one stream, if both are PIPEs."""
        return self._streams.stdio

    @property
    def terminal(self) -> bool:
        """Whether it has a terminal: see `attach`."""
        return self.record.terminal

    def __repr__(self) -> str:
        end = f"running, pid {self.pid}" if self.status is None else str(self._status)
        program = (behind_init(self.args) or self.args)[0]
        return f"<supervisor.Process {self.container}/{self.id} {program!r}: {end}>"

    # ---- for users ----------------------------------------------------------------------

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs. True at once, without a turn of the loop."""
        self.look()
        return self._status

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
        if self._status is None:
            self._shared.opener.require(self.container)
        await self._ended.wait()
        if self._status is None:
            raise SupervisorClosed(
                f"its supervisor was closed while {self.id} ran", container=self.container
            )
        self._collected.set()
        await self.wait_forgotten()
        return self._status

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
        await self.delivery.wait()
        failure = self.delivery.failure(status)
        if failure is not None:
            self.delivery.asked = True
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
        check_signal(number, "number", container=self.container, least=0)
        self._shared.opener.require(self.container)
        self._require_alive()
        if number == signal.SIGKILL:
            self.note_killed()
            self.thaw()
        if self._process is not None:
            self._process.send_signal(number)
        else:
            self._control.send(signal_line(number))

    async def ask(self, number: int, *, sent: Callable[[], None] = lambda: None) -> ExitStatus:
        """Send a signal, call ``sent``, and wait for the end.

        A pid 1 that has no handler for it yet would lose the signal: it is sent as soon as it
        would be heard. Before that it couldn't change anything.

        Raises:
            ProcessEnded: it has ended.
        """
        await self._prepared(number)
        self.send_signal(number)
        sent()
        return await self.wait()

    async def _prepared(self, number: int) -> None:
        """Return when a signal would be heard, or it has ended."""
        gate_until = min(self._gate_until, time.monotonic() + GATE_SECONDS)
        pause = _LEAST_POLL_SECONDS
        blocked = 0
        # A clock that jumps after a while without a turn of the loop shall come to that.
        most = _MOST_POLL_SECONDS if real_time() is None else math.inf
        while self._status is None and self.pid is not None:
            gate = self._gate if time.monotonic() < gate_until else None
            heard = hears(self.pid, number, gate=gate)
            blocked = blocked + 1 if heard is None else 0
            if heard or blocked == _BLOCKED_LOOKS:
                return
            with within(pause, still=False):  # how long, the grace says
                await self._ended.wait()
            pause = min(2 * pause, most)

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
            self._require_alive()
            self._control.require()
        finally:
            self._streams.close_stdin()  # our end is closed in any case

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
        return await self._terminal.attach(self._control.require)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal; the foreground processes get SIGWINCH.

        Raises:
            InvalidValue: it has no terminal, or can't have this size.
            ProcessEnded: it has ended.
            ShimError: its shim is stopped, or stuck, and takes no line; it may be repeated.
        """
        self._require_terminal()
        size = TerminalSize(columns, rows)
        self._require_alive()
        self._control.send(resize_line(size.columns, size.rows))

    def hang_up(self) -> None:
        """Hang up its terminal: its session gets SIGHUP, and reads and writes fail from then on.

        Raises:
            InvalidValue: it has no terminal.
            ProcessEnded: it has ended.
            ShimError: its shim is stopped, or stuck, and takes no line; it may be repeated.
        """
        self._require_terminal()
        self._require_alive()
        self._streams.close_stdin()

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
        specs = (self.record.stdout, self.record.stderr)
        if not any(spec is not None and spec.startswith("log:") for spec in specs):
            raise InvalidValue(
                f"the output of {self.container}/{self.id} doesn't go to a log: "
                "create or exec it with stdout=LOG"
            )
        if not self.has_container():
            raise ContainerNotFound(
                "it was deleted, and its logs with it", container=self.container
            )
        if not self._has_log():
            raise InvalidValue(
                f"the log of {self.container}/{self.id} is that of a later process of this id"
            )
        return Logs(
            self._layout.output_log(),
            index=self._layout.log_index(),
            is_there=self._has_log,
            follow=follow,
            since=since,
            until=until,
            tail=tail,
            after=after,
            is_complete=self.is_output_complete,
            wait_complete=self.wait_output_complete,
        )

    def note_log(self) -> None:
        """Take note of which log is its own: a later process of the same id has another one."""
        index = LogIndex.read(self._layout.log_index())
        self._log_name = None if index is None else index.name

    def _has_log(self) -> bool:
        """Whether its container is there, and its log is its own."""
        if self._log_name is None or not self.has_container():
            return self.has_container()
        index = LogIndex.read(self._layout.log_index())
        return index is not None and index.name == self._log_name

    def _require_alive(self) -> None:
        if self.has_ended():
            raise ProcessEnded(f"its process {self.id} has ended", container=self.container)

    def _require_terminal(self) -> None:
        if not self.record.terminal:
            raise InvalidValue(
                f"{self.container}/{self.id} has no terminal: create or exec it with terminal=True"
            )
