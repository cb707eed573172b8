"""The task that owns one shimmed process, from its launch to its settled end."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from ..cgroups import Steps, T, finish
from ..children import PidFd
from ..runtime import Call
from ..shim import TOLD, Control, ExitFifo, Leash, Made, Shim, make_fifos, signal_line
from ..spec import behind_init
from ..state import (
    ContainerLayout,
    ProcessLayout,
    ProcessRecord,
    Result,
    changed,
    dump,
    process_object,
    read_refused,
)
from ..stdio import Console, Ends, Stdio, Streams, Terminal, files_made
from ..system import HIDDEN, Lock, Original, lifted, look_at, real_time, write_whole
from ..tasks import background_nursery, nap, protected, within
from ..values import (
    Cause,
    Deadlines,
    ExitStatus,
    InvalidValue,
    Point,
    ProcessEnded,
    ShimExited,
    Source,
    StateCorrupt,
    SupervisorClosed,
    SupervisorError,
    TooManyFiles,
    scarcity,
)
from ._delivery import Delivery
from ._evidence import Finding, Found, is_shims_child, load_process
from ._launch import launch_process
from ._log import OutputLog
from ._pid1 import Identity, is_pid_1, program_of, would_act_on
from ._shared import Shared, shielded
from ._verdict import LostProcess

logger: Final = logging.getLogger("supervisor")

Listener = Callable[[ExitStatus], None]

GATE_SECONDS: Final = 0.5  # from the runtime's start to the program; who looks on may mistake it
_LEAST_POLL_SECONDS: Final = 0.002
_MOST_POLL_SECONDS: Final = 0.05
_BLOCKED_LOOKS: Final = 7  # in a row; at least 0.1 seconds: no start of a program takes that long
_LAST_MOMENT_SECONDS: Final = 0.1
_SCARCITY_SECONDS: Final = 0.05
_GATE_POLL_SECONDS: Final = 0.002
_RECORD_MS: Final = 10
_MAX_OOM_SCORE: Final = 1000


def check_signal(number: object, name: str, *, container: str, least: int = 1) -> None:
    """Raise InvalidValue, which names the argument, for what is no signal's number."""
    fits = isinstance(number, int) and not isinstance(number, bool)
    if not fits or number not in range(least, signal.NSIG):
        raise InvalidValue(
            f"{name} must be a signal, {least} to {signal.NSIG - 1}, not {number!r}",
            container=container,
        )


@protected
class ProcessTask:
    """One shimmed process from the inside. `Process` is what users see of it.

    Attributes:
        layout: its directory.
        container: the container's id.
        deadlines: how long operations may take.
        id: ``"init"``, or the exec's id.
        task_name: the name of its task, for people: ``web/init``.
        record: its ``process.json``.
        args: the program and its arguments.
        pid: its pid on the host; None before it is made, or if it couldn't be verified.
        killed_waiting: whether we have killed it while it waited to be started.
        lock: that of an exec, if we hold it: its task releases it when it is done with.
        control: its shim's control fifo.
        streams: our ends of its fifos.
        terminal: its terminal, if it has one.
        delivery: what becomes of its streams that are copied.
        log: its log, if its output goes to one.
        shown: the `Process` that users have of it, as long as they have it.
    """

    def __init__(
        self,
        shared: Shared,
        layout: ProcessLayout,
        record: ProcessRecord,
        *,
        container: str,
        cgroup: str | None,
        ends: Ends,
        leash: Leash | None = None,
        owned: bool = True,
        keep: bool = False,
        init: ProcessTask | None = None,
        when_ended: Listener,
    ) -> None:
        self._shared = shared
        self._leash = leash
        self._owned = owned
        self._owning = trio.Event()
        self._keep = keep
        self.layout: ProcessLayout = layout
        self._listeners = [when_ended]
        self._exit: ExitFifo | None = None
        self._shim: Shim | None = None
        self._process: PidFd | None = None
        self._status: ExitStatus | None = None
        self._loop = trio.lowlevel.current_trio_token()
        self._patience_ms = _RECORD_MS
        self._ended = trio.Event()
        self._over = trio.Event()
        self._launching = trio.CancelScope()
        self._shim_gone = trio.Event()
        self._collected = trio.Event()
        self._forgotten = trio.Event()
        self._kept_by_others = False
        self._watching = trio.CancelScope()
        self._asking = trio.CancelScope()
        self._killed = False
        self.killed_waiting: bool = False
        self.lock: Lock | None = None
        self._oom_before = 0
        self._oom_kills = 0
        self._init = init
        self._falls_with_init = False
        self._gate: Identity | None = None
        self._gate_until = math.inf
        self.container: str = container
        self.deadlines: Deadlines = shared.deadlines
        self._cgroup = cgroup
        self.id: str = layout.id
        self.task_name: str = f"{container}/{layout.id}"
        self.record: ProcessRecord = record
        self.args: tuple[str, ...] = record.args
        self.pid: int | None = None
        self.control: Control = Control(layout, container=container)
        directory = ContainerLayout(os.path.dirname(layout.path))
        self._container_record = Original(directory.init.record)
        self.streams: Streams = Streams(
            layout, record, self.control, ends=ends, container=container
        )
        self.terminal: Terminal = Terminal(layout, container=container)
        self.log: OutputLog = OutputLog(layout, has_container=self._container_record.stands)
        self.shown: weakref.ref[Any] | None = None
        self._ended_at = math.inf
        self.delivery: Delivery = Delivery(
            layout,
            record,
            self.control,
            drain=shared.deadlines.drain,
            shim_gone=self._shim_gone.is_set,
            container=container,
        )

    async def run(
        self,
        call: Call,
        stdio: Stdio,
        console: Console | None,
        options: Sequence[str] = (),
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Launch it and stay with it until its end is settled and its shim is gone.

        It has started when the shim has reported the process. Before that, errors go to
        whoever started the task, and what was launched is ended again. ``options`` are the
        shim's, besides those of its streams.
        """
        try:
            with self._launching, files_made(stdio) as ready:
                words = [*options, *self._oom_score(), *self._umask(), *ready.options]
                await self._launch(call, ready, console, words)
            if self._launching.cancelled_caught:
                raise ShimExited(
                    f"the launch of {self.id} was given up: its container is being deleted",
                    container=self.container,
                )
        except BaseException:
            self._close()
            self._shim_gone.set()  # whoever waits for it waits for nothing any more
            self._over.set()
            raise
        task_status.started()
        await self.watch()

    def note_killed(self) -> None:
        """Take note that we kill it, or all of its cgroup: its end needs no other explanation."""
        if not self._killed:
            self.killed_waiting = self._waits()  # afterwards nobody can tell
        self._killed = True

    def explain_oom(self) -> None:
        """Take note that one of its cgroup's out-of-memory kills was of another process."""
        self._oom_before = min(self._oom_before + 1, self.oom_kills())

    def _outlive(self, kills: int) -> None:
        """Take note that so many of these kills so far were of others: it lives."""
        if not self.has_ended():
            self._oom_before = max(self._oom_before, kills)

    def oom_kills(self) -> int:
        """Return how many processes of its container the kernel has killed for want of memory."""
        if self._cgroup is not None and self.has_container():
            seen = self._shared.hierarchies.oom_kills(self._cgroup)
            self._oom_kills = max(self._oom_kills, seen)
        return self._oom_kills

    def own(self) -> None:
        """Take over what another supervisor watched: from now on we settle its end."""
        self.streams.own(hold=self._keep)
        self._owned = True
        self._owning.set()
        self._asking.cancel()  # nobody else will tell

    def disown(self) -> None:
        """Leave its end to another supervisor again."""
        self.streams.disown()
        self._owned = False
        self._owning = trio.Event()

    @property
    def dismissed(self) -> bool:
        """Whether nobody watches it from here any more."""
        return self._watching.cancel_called

    def dismiss(self) -> None:
        """End the task that watches it; the process goes on."""
        self._watching.cancel()
        self._shim_gone.set()  # whoever waits for it waits for nothing any more
        self.abandon()

    def write_off(self, why: str) -> None:
        """Dismiss one whose files are gone; if its end isn't known by now, ``why`` says why."""
        if self._status is None:
            self._tell(self._lost(None).told_by_kernel(why))
        self.dismiss()

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
            self._ended.set()  # from here on nobody would say how it has ended

    async def _watch(self) -> None:
        if self._exit is not None:
            with contextlib.ExitStack() as patrolled:
                if self._process is not None:
                    patrolled.enter_context(
                        self._shared.patrol.watching(self._process, self._end_stuck_shim)
                    )
                patrolled.enter_context(self._shared.ooms.watching(self._cgroup, self._outlive))
                await self._exit.wait_end()
            self._shared.reach(Point.EXIT_SEEN)
            self._kept_by_others = self._exit.kept
            if self._status is None:  # that of an adopted one may have been settled long ago
                with contextlib.suppress(TooManyFiles):
                    self._settle_recorded()  # mostly, and then nobody waits for the rest
            self._exit.close()  # from here on there is one descriptor at least
            self._exit = None
        while self._status is None:
            try:
                await self._settle()
            except TooManyFiles:
                # Raised from here it would end everybody's tasks; what is on disk can wait.
                await nap(_SCARCITY_SECONDS)
        self.delivery.look()
        if self._shim is not None:
            await self._see_off(self._shim)
        self.delivery.warn()
        self._shim_gone.set()

    async def _see_off(self, shim: Shim) -> None:
        """Return when the shim of an ended process is gone.

        That of an init stays for what is unread until the container is deleted; that of an exec
        until somebody knows how it has ended.
        """
        if not self.record.exec:
            await shim.wait_gone()
            return
        async with background_nursery() as nursery:
            nursery.start_soon(self._hear_out)
            await shim.wait_gone()
            await self.terminal.settle(self.deadlines.drain)

    async def _hear_out(self) -> None:
        """Tell the shim of an ended exec that its end is known, and what is unread in our hands."""
        await self._collected.wait()
        while not self._owned:
            await self._owning.wait()
        with contextlib.suppress(SupervisorError, OSError):
            if self.record.terminal:
                await self.terminal.hear_last_words(self.deadlines.drain)
        with contextlib.suppress(SupervisorError, OSError):
            await self.control.send_patiently(TOLD)

    async def _await_last_moment(self) -> None:
        """Reap a shim that is just about to end: later nobody would, and it is our child.

        One that holds unread output stays, so this doesn't wait for long.
        """
        ended = self._status is not None or (self._exit is not None and not self.watched())
        if ended and self._shim is not None and not self._shim_gone.is_set():
            with shielded(_LAST_MOMENT_SECONDS):
                await self._shim.wait_gone()

    async def _launch(
        self, call: Call, stdio: Stdio, console: Console | None, options: Sequence[str]
    ) -> None:
        with _scarce(self.container):
            make_fifos(self.layout.exit, self.layout.control)
            self._shared.reach(Point.FIFOS_MADE)
            self._exit = ExitFifo(self.layout.exit)
            if self.record.exec:  # an init's cgroup is new
                self._oom_before = self._shared.hierarchies.oom_kills(self._cgroup)
                self._look_at_init()
            reserve = lifted(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        try:
            self._shim, made = await launch_process(
                self._shared,
                self.layout,
                call,
                options=[*options, *([] if console is None else console.options)],
                fds=[*stdio.fds, *([] if console is None else console.fds)],
                leash=self._leash,
                cgroup=self._cgroup,
            )
        finally:
            os.close(reserve)  # so that there is a descriptor for the pidfd
        try:
            self.take(_opened(made, self._shim), self._shim)
            self.pid = made.pid  # also when it has ended and was reaped by now
            self._gate = None if self.record.exec else program_of(made.pid)
            self.streams.open(hold=self._keep)
            self._shared.reach(Point.WATCHED)
            # Whoever was cancelled meanwhile won't get it: started() would say nothing.
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._undo_made()
            raise

    async def _undo_made(self) -> None:
        """End a process that was made, but that we have no descriptors left to supervise."""
        self.streams.close()
        if self._process is not None:
            self._process.kill()
        if self._shim is not None:
            with shielded(self._shared.deadlines.cleanup):
                await self._shim.give_up(self._shared.deadlines.shim)

    def _oom_score(self) -> list[str]:
        """Return the shim's option for what isn't inherited of us, whatever the runtime does."""
        wanted = process_object(self.record).get("oomScoreAdj")
        fits = isinstance(wanted, int) and abs(wanted) <= _MAX_OOM_SCORE
        return ["--oom-score-adj", str(wanted if fits else 0)]

    def _umask(self) -> list[str]:
        """Return the shim's option for it: runc gives an exec its own, whatever its process says.

        Mount points are made with that of a create.
        """
        wanted = (self.record.extra.get("user") or {}).get("umask") if self.record.exec else None
        return ["--umask", f"{wanted & 0o777:o}"] if isinstance(wanted, int) else []

    def take(self, process: PidFd | None, shim: Shim, exit: ExitFifo | None = None) -> None:
        """Take over the descriptors of a process that runs: the task closes them."""
        self._process, self._shim = process, shim
        self._shared.wards.launched(shim.pid)
        shim.wards = self._shared.wards
        self._exit = exit or self._exit
        self.pid = None if process is None else process.pid

    async def adopt(self, found: Found) -> None:
        """Take over a process that another supervisor launched.

        If it has ended, its end is settled before this returns; else `watch` waits for it.

        Cancellation: the descriptors are closed.
        """
        self.take(found.process, found.shim, found.exit)
        self._oom_kills = found.oom_kills
        self._look_at_init()
        try:
            if found.status is not None:
                self._tell(found.status)
            elif found.finding is not Finding.RUNNING and not self._is_kept(found):
                await self._settle(lost=found.lost)
            self.streams.open(hold=self._keep, owned=self._owned, adopted=True)
        except BaseException:
            self._close()
            raise

    def look_on(self, found: Found) -> None:
        """Take over, for who only looks on, a process that runs: `watch` waits for its end."""
        self.take(found.process, found.shim, found.exit)
        self._look_at_init()
        try:
            self.streams.open(hold=self._keep, owned=False, adopted=True)
        except BaseException:
            self._close()
            raise

    async def settle_again(self, found: Found) -> None:
        """Settle as its owner what was settled as another's, and may not be on record."""
        try:
            if found.status is not None:
                self._tell(found.status)
            elif found.finding is not Finding.RUNNING:
                lost_process = attrs.evolve(self._lost(found.lost), process=found.process)
                self._record(await lost_process.verdict())
        finally:
            found.close()

    def _is_kept(self, found: Found) -> bool:
        return self._keep and found.finding is Finding.ORPHAN

    def _end_stuck_shim(self) -> None:
        """Kill a shim that doesn't record the end of its process; then the kernel tells it."""
        if self._exit is not None and not self._exit.watched():
            return  # it has, and we were the slow ones
        if self._shim is not None and self._owned:
            logger.warning("%s/%s: its shim is stuck: killed", self.container, self.id)
            self._shim.kill()

    # ---- the end ------------------------------------------------------------------------

    async def _settle(self, *, lost: ExitStatus | None = None) -> None:
        """Find out how it ended, record that, and tell everybody who waits.

        ``lost`` is the status if its shim recorded nothing and the process can't be found.
        """
        lost_process = self._lost(lost)
        status = None
        if not self._owned:
            self._asking = trio.CancelScope()  # it ends when the process becomes ours
            with self._asking:
                status = await lost_process.foreign_verdict()
        if status is None or self._owned:
            status = await lost_process.verdict()
        self._record(status)

    def _settle_recorded(self) -> None:
        """Do that at once if its shim has recorded the end, as it nearly always has."""
        status = self._lost(None).recorded()
        if status is not None:
            self._record(status)

    def look(self) -> None:
        """Settle its end now, if it has ended: its task may not have had its turn yet.

        While it lives that is two system calls. Once it has ended, its shim has yet to record that,
        mostly within a tenth of a millisecond: it has a moment for it, once. Later, and from
        another thread, what is known is what the task has seen.
        """
        if self._status is not None or self._exit is None:
            return
        if not self._is_here() or self._shared.opener.elsewhere():
            return
        if self._exit.watched():
            if self._process is None or not self._process.ended():
                return
            patience, self._patience_ms = self._patience_ms, 0
            if not self._exit.ends_within(patience):
                return
        with contextlib.suppress(TooManyFiles):
            self._settle_recorded()

    def _is_here(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._loop
        except RuntimeError:
            return False

    def has_ended(self) -> bool:
        """Whether it has ended, recorded or not: from then on no signal reaches it."""
        self.look()
        return self._status is not None or (self._process is not None and self._process.ended())

    def _lost(self, lost: ExitStatus | None) -> LostProcess:
        return LostProcess(
            shared=self._shared,
            layout=self.layout,
            process=self._process,
            cgroup=None if self.record.exec else self._cgroup,
            lost=lost,
            keep=self._keep,
        )

    def _record(self, status: ExitStatus) -> None:
        status = self._with_oom(status)
        if self._owned and not self._shared.opener.elsewhere():
            try:
                kills = 0 if self.record.exec else self.oom_kills()
                write_whole(self.layout.result, dump(Result(status=status, oom_kills=kills)))
            except OSError as error:
                # Nothing is lost: what the shim recorded is still there for the next open.
                logger.warning("cannot write %s: %s", self.layout.result, error)
            self._shared.reach(Point.SETTLED)
        self._tell(status)

    def _tell(self, status: ExitStatus) -> None:
        self._status = status
        self._ended_at = time.monotonic()
        for listener in tuple(self._listeners):
            listener(status)
        self._ended.set()
        self._over.set()

    def _with_oom(self, status: ExitStatus) -> ExitStatus:
        told = self._by_tiny_init(status)
        if (status.signal != signal.SIGKILL and not told) or self._killed:
            return status  # a SIGKILL of ours explains itself
        if self._shared.hierarchies.oom_kills(self._cgroup) <= self._oom_before:
            return status
        if self._falls_with_init and self._init is not None and self._init.ending():
            return status  # the kernel kills all others in the namespace of a pid 1 that ends
        cause = status.cause if told else Cause.OUT_OF_MEMORY
        return attrs.evolve(status, cause=cause, oom_killed=True)

    def _by_tiny_init(self, status: ExitStatus) -> bool:
        """Whether it is the init of ``init=True`` that means a SIGKILL by an exit code.

        It does where it couldn't tell its shim: where that was killed, with a runtime that hands on
        no descriptors, restored from a checkpoint, and in containers of an earlier version.
        """
        told = self.record.init_tells and status.source is Source.SHIM
        behind = behind_init(self.args) is not None and not told
        return behind and status.code == 128 + signal.SIGKILL

    def refused(self) -> int | None:
        """Return why its init couldn't run the program, the system's error number; None if it did.

        Known once it has ended, with 126 or 127.
        """
        with contextlib.suppress(StateCorrupt, OSError):
            return read_refused(self.layout.refused)
        return None

    def ending(self) -> bool:
        """Whether it has ended, or is about to."""
        if self._status is not None or self._process is None:
            return self._status is not None or not self.watched()
        if self._process.ended():
            return True
        now = look_at(self._process.pid)
        # Hidden (see `look_at`), or reaped since the first look.
        return self._process.ended() if now is None else now.exiting

    def _look_at_init(self) -> None:
        self._falls_with_init = self._init is not None and is_pid_1(self._init.pid)

    # ---- for its users ---------------------------------------------------------------------

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs. True at once, without a turn of the loop."""
        self.look()
        return self._status

    async def wait(self) -> ExitStatus:
        """Wait until it has ended; see `Process.wait`."""
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

    def require_alive(self) -> None:
        """Raise ProcessEnded if it has ended."""
        if self.has_ended():
            raise ProcessEnded(f"its process {self.id} has ended", container=self.container)

    def send_signal(self, number: int) -> None:
        """Send it a signal; see `Process.send_signal`."""
        check_signal(number, "number", container=self.container, least=0)
        self._shared.opener.require(self.container)
        self.require_alive()
        if number == signal.SIGKILL:
            self.note_killed()
            self.thaw()
        if self._process is not None:
            self._process.send_signal(number)
        else:
            self.control.send(signal_line(number))

    async def prepared(self, number: int) -> None:
        """Return when a signal would be acted on, or it has ended.

        PID 1 ignores a signal without a handler: one that is sent too early is lost.
        """
        gate_until = min(self._gate_until, time.monotonic() + GATE_SECONDS)
        pause = _LEAST_POLL_SECONDS
        blocked = 0
        # A clock that jumps after a while without a turn of the loop shall come to that.
        most = _MOST_POLL_SECONDS if real_time() is None else math.inf
        while self._status is None and self.pid is not None:
            gate = self._gate if time.monotonic() < gate_until else None
            heard = would_act_on(self.pid, number, gate=gate)
            blocked = blocked + 1 if heard is None else 0
            if heard or blocked == _BLOCKED_LOOKS:
                return
            with within(pause, still=False):  # how long, the grace says
                await self._ended.wait()
            pause = min(2 * pause, most)

    def container_pids(self) -> set[int]:
        """Return the pids, on the host, of all processes of its container."""
        return finish(self.container_pid_steps())

    def container_pid_steps(self) -> Steps[set[int]]:
        """Do that in small steps."""
        if self._cgroup is None:
            return set()
        found = yield from self._shared.hierarchies.member_steps(self._cgroup)
        return found if self.has_container() else set()  # else they are a later one's, of its id

    async def carry_out(self, steps: Steps[T]) -> T:
        """Take steps without holding up others."""
        return await self._shared.hierarchies.carry_out(steps)

    def thaw(self) -> None:
        """Thaw its container: on cgroup version 1 no SIGKILL reaches what is frozen."""
        if self._cgroup is not None:
            self._shared.hierarchies.begin_thaw(self._cgroup, self.has_container)

    def has_container(self) -> bool:
        """Whether its container's directory is there: not that of a later one of the same id."""
        return self._container_record.stands()

    def is_output_complete(self) -> bool:
        """Whether nothing more is to be expected of its output."""
        late = time.monotonic() >= self._ended_at + self._shared.deadlines.drain
        return self._shim_gone.is_set() or late

    async def wait_output_complete(self) -> None:
        """Return when it has ended, and its output too, or ``deadlines.drain`` has passed."""
        await self._ended.wait()
        left = self._ended_at + self._shared.deadlines.drain - time.monotonic()
        with within(max(0.0, left)):
            await self._shim_gone.wait()

    # ---- for the container --------------------------------------------------------------

    def become(self, process: Mapping[str, Any]) -> None:
        """Put on record that its gate becomes this program: an OCI process object."""
        self._know(
            changed(
                self.record, args=process["args"], env=process.get("env", ()), cwd=process["cwd"]
            )
        )
        try:
            write_whole(self.layout.program, dump(self.record))
        except OSError as error:
            logger.warning("cannot write %s: %s", self.layout.program, error)

    def look_again(self) -> None:
        """Read anew what it is: another supervisor may have had its gate become a program."""
        with contextlib.suppress(SupervisorError, OSError):
            self._know(load_process(self.layout))

    def _know(self, record: ProcessRecord) -> None:
        self.record, self.args = record, record.args

    @contextlib.contextmanager
    def when_ended(self, listener: Listener) -> Iterator[None]:
        """Call ``listener`` if it ends inside the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def watched(self) -> bool:
        """Whether its shim still watches it, as far as one look at ``exit`` tells, or we do."""
        if self._exit is not None and self._exit.watched():
            return True
        return self._keep and self._process is not None and not self._process.ended()

    def give_up(self) -> None:
        """End its launch, if that is still under way."""
        self._launching.cancel()

    async def wait_over(self) -> None:
        """Return when it has ended, or its launch has failed."""
        await self._over.wait()

    @property
    def has_shim(self) -> bool:
        """Whether its shim is watched, and reaped, from here."""
        return self._shim is not None and not self.dismissed

    def kill_shim(self) -> None:
        """SIGKILL its shim: one that is stuck, of a container that is deleted."""
        if self._shim is not None:
            self._shim.kill()

    async def wait_shim_gone(self) -> None:
        """Return when its shim has ended, and nothing of it is left but files."""
        await self._shim_gone.wait()

    def abandon(self) -> None:
        """Don't keep it until somebody has waited for its end: nobody is going to."""
        self._collected.set()

    @property
    def uncollected(self) -> bool:
        """Whether it has ended, is ours, and nobody has waited for its end."""
        return self._status is not None and self._owned and not self._collected.is_set()

    def forget(self) -> None:
        """Take note that nothing is left of it on disk: its id is free."""
        self._forgotten.set()

    async def wait_forgotten(self) -> None:
        """Return when the id of an ended exec is free, unless others keep its shim.

        They may still write to its log, or to what is copied, or be attached to its terminal.
        """
        ours = self._owned and (not self._kept_by_others or self.terminal.in_hand)
        if self.record.exec and ours:
            with within(self.deadlines.shim):
                await self._forgotten.wait()

    async def wait_collected(self) -> None:
        """Return when somebody knows how it has ended, or nobody ever will."""
        await self._collected.wait()

    def note_gate(self) -> None:
        """Take note of what it runs while it waits to be started, if nobody has yet."""
        if self._gate is None and self.pid is not None:
            self._gate = program_of(self.pid)

    async def has_begun(self, seconds: float) -> bool:
        """Whether it runs the user's program, or does so within ``seconds``.

        Until then it runs the runtime's own, which waits to be started.
        """
        with within(seconds):
            while self.pid is not None and self._gate is not None:
                now = program_of(self.pid)
                if now is None:
                    return False
                if now != self._gate:
                    return True
                await nap(_GATE_POLL_SECONDS)
        return False

    def _waits(self) -> bool:
        if self.pid is None or self._gate is None or time.monotonic() > self._gate_until:
            return False
        return program_of(self.pid) == self._gate

    def mark_waiting(self, *, seconds: float = math.inf) -> None:
        """Take note that it waits to be started: what it runs is the runtime's program.

        Where it may be the user's already, that is believed for so many seconds.
        """
        self._gate_until = time.monotonic() + seconds
        self._gate = None if self.pid is None else program_of(self.pid)

    def _close(self) -> None:
        if self._shared.opener.elsewhere():
            self.streams.close()  # in a forked child nobody waits for them any more
        self.streams.release()
        self.terminal.close()
        for part in (self._exit, self._shim, self._process):
            if part is not None:
                part.close()
        self._exit = self._shim = self._process = None


def _opened(made: Made, shim: Shim) -> PidFd | None:
    """Return the process that a shim has reported; None if it has ended, and was reaped."""
    if made.start_time != HIDDEN:
        return PidFd.open(made.pid, made.start_time)
    process = PidFd.open(made.pid)
    if process is not None and not is_shims_child(shim, made.pid):
        process.close()
        return None
    return process


@contextlib.contextmanager
def _scarce(container: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise scarcity(error, container=container) from error
