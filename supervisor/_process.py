"""One shimmed process, and the task that owns it from its launch to its settled end."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from ._errors import (
    ProcessEnded,
    TooManyFiles,
    scarcity,
)
from ._evidence import Finding, Found
from ._hearing import Identity, hears, program_of
from ._host import Host, shielded
from ._launch import launch_process
from ._pidfd import PidFd
from ._status import Cause, ExitStatus
from ._verdict import Remains
from .shim import (
    CLOSE_STDIN,
    ExitFifo,
    Leash,
    Shim,
    make_fifos,
    send_line,
    signal_line,
)
from .state import (
    ProcessLayout,
    ProcessRecord,
    Result,
    dump,
    write_whole,
)
from .stdio import InputStream, open_output

logger: Final = logging.getLogger("supervisor")

_LAST_MOMENT_SECONDS: Final = 0.1
_SCARCITY_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.005

_HEARING_SECONDS = 0.5
_HEARING_POLL_SECONDS = 0.002


class Process:
    """A process in a container: its init, or an exec beside it.

    It is made by `Supervisor.create` and `Container.exec`, and owned by a task in the
    supervisor's nursery. Names and behaviour are those of `trio.Process`; the one difference
    is that `wait` returns an `ExitStatus`.

    Attributes:
        container: the container's id.
        id: ``"init"``, or the exec's id.
        record: its `ProcessRecord`.
        args: the program and its arguments, a tuple of str.
        pid: its pid on the host; None before it is made, or if it couldn't be verified.
        stdin: a `trio.abc.SendStream` if it was asked for as PIPE, else None. Closing it is
            the end of the process's input.
        stdout: a `trio.abc.ReceiveStream` if it was asked for as PIPE, else None.
        stderr: the same.
    """

    def __init__(
        self,
        host: Host,
        layout: ProcessLayout,
        record: ProcessRecord,
        *,
        container: str,
        cgroup: str | None,
        leash: Leash | None = None,
        owned: bool = True,
        when_ended: Callable[[ExitStatus], None] = lambda status: None,
    ) -> None:
        self._host = host
        self._leash = leash
        self._owned = owned
        self._layout = layout
        self._when_ended = when_ended
        self._cgroup = cgroup
        self._exit: ExitFifo | None = None
        self._shim: Shim | None = None
        self._process: PidFd | None = None
        self._status: ExitStatus | None = None
        self._ended = trio.Event()
        self._shim_gone = trio.Event()
        self._collected = trio.Event()
        self._watching = trio.CancelScope()
        self._killed = False
        self._oom_before = 0
        self._gate: Identity | None = None
        self._started_at = -math.inf
        self.container: str = container
        self.id: str = layout.id
        self.record: ProcessRecord = record
        self.args: tuple[str, ...] = record.args
        self.pid: int | None = None
        self.stdin: trio.abc.SendStream | None = None
        self.stdout: trio.abc.ReceiveStream | None = None
        self.stderr: trio.abc.ReceiveStream | None = None

    def __repr__(self) -> str:
        end = f"pid {self.pid}" if self._status is None else str(self._status)
        return f"<supervisor.Process {self.container}/{self.id} {self.args[0]!r}: {end}>"

    # ---- for users ----------------------------------------------------------------------

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs."""
        return self._status

    @property
    def returncode(self) -> int | None:
        """As `trio.Process.returncode`: the exit code, -N for signal N; None while it runs.

        255 if nobody knows how it ended; `status` says why.
        """
        if self._status is None:
            return None
        return -self._status.signal if self._status.signal is not None else int(self._status)

    async def wait(self) -> ExitStatus:
        """Wait until it has ended, whoever still holds its streams.

        Returns:
            The same status to everybody, as often as asked.

        Cancellation: the process goes on.
        """
        await self._ended.wait()
        assert self._status is not None
        self._collected.set()
        return self._status

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send it a signal, through its pidfd (or its shim, where its pid isn't certain).

        A pid 1 gets only signals that it has a handler for, and SIGKILL (man 7 pid_namespaces).

        Raises:
            ProcessEnded: it has ended.
        """
        if self._status is not None:
            raise ProcessEnded(f"its process {self.id} has ended", container=self.container)
        self._killed = self._killed or number == signal.SIGKILL
        if self._process is not None:
            self._process.send_signal(number)
        else:
            send_line(self._layout.control, signal_line(number))

    async def ask(self, number: int) -> ExitStatus:
        """Send a signal, and wait for the end.

        A pid 1 that was started just now may not have its handler yet, and would lose the
        signal: then it is sent as soon as it would be heard, or a moment later anyway.

        Raises:
            ProcessEnded: it has ended.
        """
        with trio.move_on_at(self._started_at + _HEARING_SECONDS):
            while self.pid is not None and not hears(self.pid, number, gate=self._gate):
                await trio.sleep(_HEARING_POLL_SECONDS)
        self.send_signal(number)
        return await self.wait()

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
        """
        if isinstance(self.stdin, InputStream):
            self.stdin.close()
        else:
            send_line(self._layout.control, CLOSE_STDIN)

    # ---- the task -----------------------------------------------------------------------

    async def run(
        self,
        command: Sequence[str],
        options: Sequence[str],
        fds: Sequence[int],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Launch it and stay with it until its end is settled and its shim is gone.

        It has started when the shim has reported the process. Before that, errors go to
        whoever started the task, and what was launched is ended again.
        """
        try:
            await self._launch(command, options, fds)
        except BaseException:
            self._close()
            raise
        task_status.started()
        await self.watch()

    def explain_oom(self) -> None:
        """Take note that one of its cgroup's out-of-memory kills was of another process."""
        self._oom_before += 1

    def own(self) -> None:
        """Take over what another supervisor watched: from now on we settle its end."""
        self._owned = True

    def dismiss(self) -> None:
        """End the task that watches it; the process goes on."""
        self._watching.cancel()

    async def watch(self) -> None:
        """Wait for its end, settle it, and wait until its shim is gone.

        Cancellation: everything goes on running, for another supervisor to adopt.
        """
        try:
            with self._watching:
                await self._watch()
        finally:
            await self._await_last_moment()
            self._close()

    async def _watch(self) -> None:
        if self._exit is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_stuck_shim)
                await self._exit.wait_end()
                with contextlib.suppress(TooManyFiles):
                    self._settle_recorded()  # mostly, and then nobody waits for the rest
                nursery.cancel_scope.cancel()
            self._exit.close()  # from here on there is one descriptor at least
            self._exit = None
        while self._status is None:
            try:
                await self._settle()
            except TooManyFiles:
                # Raised from here it would end everybody's tasks; what is on disk can wait.
                await trio.sleep(_SCARCITY_SECONDS)
        if self._shim is not None:
            await self._shim.wait_gone()
        self._shim_gone.set()

    async def _await_last_moment(self) -> None:
        """Reap a shim that is just about to end: later nobody would, and it is our child.

        One that holds unread output stays, so this doesn't wait for long.
        """
        if self._status is not None and self._shim is not None and not self._shim_gone.is_set():
            with shielded(_LAST_MOMENT_SECONDS):
                await self._shim.wait_gone()

    async def _launch(
        self, command: Sequence[str], options: Sequence[str], fds: Sequence[int]
    ) -> None:
        with _scarce(self.container):
            make_fifos(self._layout.exit, self._layout.control)
            self._exit = ExitFifo(self._layout.exit)
            if self.record.exec:  # an init's cgroup is new
                self._oom_before = self._host.hierarchies.oom_kills(self._cgroup)
            reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._shim, made = await launch_process(
                self._host,
                self._layout,
                command,
                options=options,
                fds=fds,
                leash=self._leash,
                container=self.container,
            )
        finally:
            os.close(reserve)  # so that there is a descriptor for the pidfd
        try:
            self.attach(PidFd.open(made.pid, made.start_time), self._shim)
            self.pid = made.pid  # also when it has ended and was reaped by now
            self._gate = None if self.record.exec else program_of(made.pid)
            self.open_streams()
        except BaseException:
            await self._undo_made()
            raise

    async def _undo_made(self) -> None:
        """End a process that was made, but that we have no descriptors left to supervise."""
        self.close_streams()
        if self._process is not None:
            self._process.kill()
        if self._shim is not None:
            with shielded(self._host.deadlines.cleanup):
                await self._shim.give_up(self._host.deadlines.shim)

    def attach(self, process: PidFd | None, shim: Shim, exit: ExitFifo | None = None) -> None:
        """Take over the descriptors of a process that runs: the task closes them."""
        self._process, self._shim = process, shim
        self._exit = exit or self._exit
        self.pid = None if process is None else process.pid

    async def adopt(self, found: Found) -> None:
        """Take over a process that another supervisor launched.

        If it has ended, its end is settled before this returns; else `watch` waits for it.

        Cancellation: the descriptors are closed.
        """
        self.attach(found.process, found.shim, found.exit)
        try:
            if found.status is not None:
                self._tell(found.status)
            elif found.finding is not Finding.RUNNING:
                await self._settle(lost=found.lost)
            self.open_streams()
        except BaseException:
            self._close()
            raise

    def open_streams(self) -> None:
        """Open the fifos among its standard streams."""
        # No reference back to us: a stream that nobody keeps is closed at once.
        let_go = partial(send_line, self._layout.control, CLOSE_STDIN)
        for name in ("stdin", "stdout", "stderr"):
            spec = getattr(self.record, name)
            if spec is None or not spec.startswith("fifo:"):
                continue
            path = spec[5:]
            setattr(
                self,
                name,
                InputStream(path, let_go) if name == "stdin" else open_output(path),
            )

    async def _end_stuck_shim(self) -> None:
        """Kill a shim that doesn't record the end of its process; then the kernel tells it.

        It was stopped, say. An exec's zombie holds its container's pid namespace, so init
        couldn't end either.
        """
        if self._process is not None and self._shim is not None and self._owned:
            await self._process.wait_ended()
            await trio.sleep(self._host.deadlines.shim)
            logger.warning("%s/%s: its shim is stuck: killed", self.container, self.id)
            self._shim.kill()
        await trio.sleep_forever()

    # ---- the end ------------------------------------------------------------------------

    async def _settle(self, *, lost: ExitStatus | None = None) -> None:
        """Find out how it ended, record that, and tell everybody who waits.

        ``lost`` is the status if its shim recorded nothing and the process can't be found.
        """
        remains = self._remains(lost)
        self._record(await (remains.verdict() if self._owned else remains.foreign_verdict()))

    def _settle_recorded(self) -> None:
        """Do that at once if its shim has recorded the end, as it nearly always has."""
        status = self._remains(None).recorded()
        if status is not None:
            self._record(status)

    def _remains(self, lost: ExitStatus | None) -> Remains:
        return Remains(
            host=self._host,
            layout=self._layout,
            process=self._process,
            cgroup=None if self.record.exec else self._cgroup,
            lost=lost,
        )

    def _record(self, status: ExitStatus) -> None:
        status = self._with_oom(status)
        if self._owned:
            try:
                write_whole(self._layout.result, dump(Result(status=status)))
            except OSError as error:
                # Nothing is lost: what the shim recorded is still there for the next open.
                logger.warning("cannot write %s: %s", self._layout.result, error)
        self._tell(status)

    def _tell(self, status: ExitStatus) -> None:
        self._status = status
        self._when_ended(status)
        self._ended.set()

    def _with_oom(self, status: ExitStatus) -> ExitStatus:
        if status.signal != signal.SIGKILL or self._killed:
            return status  # a SIGKILL of ours explains itself
        if self._host.hierarchies.oom_kills(self._cgroup) <= self._oom_before:
            return status
        return attrs.evolve(status, cause=Cause.OUT_OF_MEMORY, oom_killed=True)

    # ---- for the container --------------------------------------------------------------

    def watched(self) -> bool:
        """Whether its shim still watches it, as far as one look at ``exit`` tells."""
        return self._exit is not None and self._exit.watched()

    async def wait_shim_gone(self) -> None:
        """Return when its shim has ended, and nothing of it is left but files."""
        await self._shim_gone.wait()

    async def wait_collected(self) -> None:
        """Return when it has ended, somebody knows how, and its output was read."""
        await self._collected.wait()
        await self._shim_gone.wait()

    def mark_started(self) -> None:
        """Take note of the time: from now on it becomes the user's program."""
        self._started_at = trio.current_time()

    def close_streams(self) -> None:
        """Close our ends of its fifos; the process isn't told."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if isinstance(stream, InputStream):
                stream.detach()
            elif isinstance(stream, trio.lowlevel.FdStream):
                stream.close()

    def _close(self) -> None:
        for part in (self._exit, self._shim, self._process):
            if part is not None:
                part.close()
        self._exit = self._shim = self._process = None


@contextlib.contextmanager
def _scarce(container: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise scarcity(error, container=container) from error
