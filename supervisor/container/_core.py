"""What the operations on one container share: its record, lock, state and processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from ..process import GATE_SECONDS, Listener, ProcessTask, Shared
from ..runtime import ContainerRuntime
from ..state import (
    Asked,
    ContainerLayout,
    ContainerRecord,
    Intent,
    ProcessLayout,
    ProcessRecord,
    ShimLost,
    changed,
    dump,
    read_asked,
)
from ..stdio import Ends
from ..system import Lock, write_new, write_whole
from ..tasks import HISTORY_LENGTH, Change, ContainerReport, witness
from ..values import (
    CleanupIncomplete,
    ContainerLocked,
    Event,
    ExitStatus,
    InfrastructureError,
    State,
    SupervisorClosed,
    SupervisorError,
    next_state,
)
from ._under_way import Operations

_KEPT_EXECS: Final = 64


@attrs.define(kw_only=True, eq=False)
class Core:
    """One container from the inside. `Container` is what users see of it.

    Attributes:
        shared: what its supervisor's parts share.
        nursery: the supervisor's: it owns the task of each process.
        layout: its directory.
        record: its ``state.json``.
        lock: held by us; None for a foreign one.
        gone: called when it was deleted, or with the error when it couldn't be.
        state: where it stands in its lifecycle.
        history: how it came to that, the last changes only. It is replaced, not changed: other
            threads read it.
        init: its first process.
        execs: its other processes, by id, as long as they aren't done with.
        ends: our ends of all its processes' fifos, also of execs that are done with.
        deleting: held by the one task that deletes it.
        operations: what else is done with it and ends when its supervisor closes.
        stops: how many tasks are stopping it.
        noted: the last stop that was put on record from here.
    """

    shared: Shared
    nursery: trio.Nursery
    layout: ContainerLayout
    record: ContainerRecord
    lock: Lock | None
    gone: Callable[[str, CleanupIncomplete | None], None]
    state: State = State.CREATING
    history: tuple[Change, ...] = attrs.field(init=False, default=())
    init: ProcessTask = attrs.field(init=False)
    execs: dict[str, ProcessTask] = attrs.field(init=False, factory=dict)
    ends: Ends = attrs.field(init=False, factory=Ends)
    deleting: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    operations: Operations = attrs.field(init=False, factory=Operations)
    stops: int = attrs.field(init=False, default=0)
    noted: Asked | None = attrs.field(init=False, default=None)

    def add_init(self, record: ProcessRecord) -> ProcessTask:
        """Give it its init, which isn't launched or watched yet."""
        self.init = self.new_process(self.layout.init, record, when_ended=self._init_ended)
        return self.init

    def new_process(
        self,
        layout: ProcessLayout,
        record: ProcessRecord,
        *,
        lock: Lock | None = None,
        when_ended: Listener | None = None,
    ) -> ProcessTask:
        """Return a process that isn't launched or watched yet; ``lock`` is that of an exec."""
        return ProcessTask(
            self.shared,
            layout,
            record,
            container=self.record.id,
            cgroup=self.record.cgroup,
            ends=self.ends,
            leash=self.shared.leash if self.record.leash and self.held else None,
            keep=self.record.on_shim_lost is ShimLost.KEEP,
            owned=(lock if record.exec else self.lock) is not None,
            lock=lock,
            init=self.init if record.exec else None,
            when_ended=when_ended or self._exec_ended,
        )

    @property
    def processes(self) -> list[ProcessTask]:
        """Its processes; none of one that is removed without being adopted."""
        init: ProcessTask | None = getattr(self, "init", None)
        return [*([] if init is None else [init]), *self.execs.values()]

    @property
    def runtime(self) -> ContainerRuntime:
        """Its runtime: what calls that, with its lock."""
        return self.shared.runtime_of(self.record, self.lock)

    def check(self, event: Event) -> State:
        """Return the state that ``event`` leads to; raise IllegalTransition, changing nothing."""
        return next_state(self.see(), event, container=self.record.id)

    def apply(self, event: Event) -> None:
        """Go to the state that ``event`` leads to."""
        self.state = next_state(self.refresh(), event, container=self.record.id)
        self.note(event.value)

    def note(self, event: str) -> None:
        """Put on record what has led to its state."""
        change = Change(time.time_ns(), event, self.state)
        self.history = (*self.history, change)[-HISTORY_LENGTH:]

    def show(self) -> None:
        """Let whoever looks on, if anybody does, take note of it."""
        looking = witness.get()
        if looking is None:
            return
        spec = b""
        with contextlib.suppress(OSError), open(self.layout.config, "rb") as file:
            spec = file.read()
        looking.saw(
            ContainerReport(
                id=self.record.id,
                args=self.init.args,
                spec=spec,
                history=lambda: self.history,
                status=lambda: self.init.status,
            )
        )

    @property
    def held(self) -> bool:
        """Whether we hold its lock: neither a foreign one's, nor any more when we are closed."""
        return self.lock is not None and self.lock.fd >= 0

    def stands(self) -> bool:
        """Whether it is still there: not only a later one of its id, with the same cgroup."""
        return self.held or (os.path.lexists(self.layout.state) and self.init.group.has_container())

    def see(self) -> State:
        """Return its state, whether or not its init's task has had its turn since that ended.

        Not in the middle of an operation, which would find itself in another state.
        """
        self.init.end.look()
        return self.refresh()

    def refresh(self) -> State:
        """Return its state; one that isn't ours may have been started or deleted meanwhile."""
        if self.state is not State.DELETING and not self.stands():
            self.state = State.DELETED
        elif not self.held and self.state is State.CREATED and self.was_started():
            self.state = State.RUNNING
            self.init.gate.look_again()
        if self.state in (State.RUNNING, State.STOPPING):
            asked = self.stops > 0 or self.asked() is not None
            self.state = State.STOPPING if asked else State.RUNNING
        return self.state

    def asked(self) -> Asked | None:
        """Return the stop that is under way by whomever, as far as it is on record.

        One that its caller was killed at, and nobody has taken up, isn't any more when its time
        is over.
        """
        with contextlib.suppress(SupervisorError, OSError):
            asked = read_asked(self.layout.init.stopping)
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if asked is not None and now_ns - self.shared.deadlines.kill * 1e9 < asked.until_ns:
                return asked
        return None

    def was_started(self) -> bool:
        """Whether a supervisor has seen the runtime start it."""
        return os.path.lexists(self.layout.init.started)

    def was_just_started(self) -> bool:
        """Whether its init may still run the runtime's program, which hands over to the user's."""
        with contextlib.suppress(OSError):
            return time.time() - os.stat(self.layout.init.started).st_mtime < GATE_SECONDS
        return False

    def mark_started(self) -> None:
        """Put on record that it was started, so that adoption needs no runtime to know.

        Where that can't be written (a full disk), the next open asks the runtime.
        """
        with contextlib.suppress(OSError, InfrastructureError):
            write_new(self.layout.init.started, b"")

    def own(self, lock: Lock) -> None:
        """Take over one that was foreign, with its lock in hand; execs have locks of their own."""
        self.lock = lock
        self.init.own()

    def disown(self) -> None:
        """Make it a foreign one again, whose lock isn't ours."""
        self.lock = None
        self.init.disown()

    def dismiss(self) -> None:
        """End the tasks that watch its processes, and close our ends of its streams.

        It isn't ours from now on: nothing of it is removed.
        """
        self.lock = None
        self.close_streams()
        for process in (self.init, *self.execs.values()):
            process.dismiss()

    def write_off(self, why: str) -> None:
        """Dismiss one that can't be watched any more; whoever waits for an end is told ``why``."""
        for process in (self.init, *self.execs.values()):
            process.write_off(why)
        self.dismiss()

    @contextlib.contextmanager
    def operating(self) -> Iterator[None]:
        """Do something that ends, undone as if it were cancelled, when its supervisor closes.

        Afterwards its directory may be another's, so nothing is done there then.

        Raises:
            SupervisorClosed: it is closing, or began to meanwhile.
        """
        self.shared.require_open(self.record.id)
        with self.operations.under_way() as scope:
            yield
        if scope.cancelled_caught:
            raise SupervisorClosed("its supervisor was closed meanwhile", container=self.record.id)

    def require_own(self, operation: str) -> None:
        """Refuse an operation that only the supervisor that holds the lock may do."""
        self.shared.require_open(self.record.id, deletes=operation == "delete")
        if self.lock is None:
            raise ContainerLocked(
                f"cannot {operation}: another supervisor that is alive supervises it",
                container=self.record.id,
            )

    def intend(self, intent: Intent | None) -> None:
        """Record what is about to be done, for whoever opens next; foreign ones aren't ours."""
        if self.held and self.record.intent is not intent:
            self.record = changed(self.record, intent=intent)
            write_whole(self.layout.state, dump(self.record))

    def let_go(self) -> None:
        """Release its lock and our ends of its streams; the container goes on."""
        self.close_streams()
        if self.lock is not None:
            self.lock.release()

    def close_streams(self) -> None:
        """Close our ends of its processes' fifos, whoever has them in hand."""
        for process in (self.init, *self.execs.values()):
            process.streams.close()
        for end in tuple(self.ends):
            end.detach()

    def _exec_ended(self, status: ExitStatus) -> None:
        if status.oom_killed:  # that kill was its own, and nobody else's
            for process in (self.init, *self.execs.values()):
                process.group.explain()
        # Each has a directory, and its lock a descriptor: who waits for none keeps some of them.
        for process in [one for one in self.execs.values() if one.uncollected][:-_KEPT_EXECS]:
            process.abandon()

    def _init_ended(self, status: ExitStatus) -> None:
        if self.refresh() not in (State.STOPPED, State.DELETED):
            self.apply(Event.EXITED)
