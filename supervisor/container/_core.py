"""The core of a container, shared by all operations: record, lock, state and processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from ..observers import (
    HISTORY_LENGTH,
    Change,
    Changed,
    Ended,
    Gone,
    Observers,
    weakly,
)
from ..process import GATE_SECONDS, ProcessTask, Shared
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
    """The inside of one container; `Container` is the public face.

    Attributes:
        shared: what the supervisor's parts share.
        nursery: the supervisor's nursery, where the task of each process runs.
        layout: the container's directory.
        record: the container's ``state.json``.
        lock: the container's lock, held by us; None for a foreign container.
        state: the container's state.
        observers: notified of what happens to the container.
        history: the last changes of state. The tuple is replaced, not changed: other threads
            read the tuple.
        init: the first process.
        execs: the other processes, by id, until they are collected.
        ends: our ends of all processes' fifos, also of collected execs.
        deleting: held by the one task that deletes the container.
        operations: the other running operations, which end when the supervisor closes.
        stops: how many tasks are stopping the container.
        noted: the last stop that this supervisor has recorded.
    """

    shared: Shared
    nursery: trio.Nursery
    layout: ContainerLayout
    record: ContainerRecord
    lock: Lock | None
    state: State = State.CREATING
    observers: Observers = attrs.field(init=False)
    history: tuple[Change, ...] = attrs.field(init=False, default=())
    init: ProcessTask = attrs.field(init=False)
    execs: dict[str, ProcessTask] = attrs.field(init=False, factory=dict)
    ends: Ends = attrs.field(init=False, factory=Ends)
    deleting: trio.Lock = attrs.field(init=False, factory=trio.Lock)
    operations: Operations = attrs.field(init=False, factory=Operations)
    stops: int = attrs.field(init=False, default=0)
    noted: Asked | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.observers = Observers(above=self.shared.observers)
        # A stream that a caller keeps has the observers, and would keep us.
        self.observers.add(Ended, weakly(self._ended))

    def add_init(self, record: ProcessRecord) -> ProcessTask:
        """Add the init, which isn't launched or watched yet."""
        self.init = self.new_process(self.layout.init, record)
        return self.init

    def new_process(
        self,
        layout: ProcessLayout,
        record: ProcessRecord,
        *,
        lock: Lock | None = None,
    ) -> ProcessTask:
        """Return a process that isn't launched or watched yet; ``lock`` is an exec's lock."""
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
            observers=self.observers,
        )

    @property
    def processes(self) -> list[ProcessTask]:
        """The processes; none for a container that is removed without being adopted."""
        init: ProcessTask | None = getattr(self, "init", None)
        return [*([] if init is None else [init]), *self.execs.values()]

    @property
    def runtime(self) -> ContainerRuntime:
        """The container's runtime, whose calls hold the container's lock."""
        return self.shared.runtime_of(self.record, self.lock)

    def check(self, event: Event) -> State:
        """Return the state that ``event`` leads to; raise IllegalTransition, changing nothing."""
        return next_state(self.see(), event, container=self.record.id)

    def apply(self, event: Event) -> None:
        """Go to the state that ``event`` leads to."""
        self.state = next_state(self.refresh(), event, container=self.record.id)
        self.note(event.value)

    def note(self, event: str) -> None:
        """Add an event, and the state that the event led to, to the history."""
        change = Change(time.time_ns(), event, self.state)
        self.history = (*self.history, change)[-HISTORY_LENGTH:]
        self.observers.notify(Changed(self.record.id, change))

    def gone(self, error: CleanupIncomplete | None = None) -> None:
        """Notify the observers that the container was deleted, or couldn't be."""
        self.observers.notify(Gone(self.record.id, error))

    @property
    def held(self) -> bool:
        """Whether we hold the container's lock: not if foreign, and not after we have closed."""
        return self.lock is not None and self.lock.fd >= 0

    def stands(self) -> bool:
        """Whether the container still exists; a later one with its id and cgroup doesn't count."""
        return self.held or (os.path.lexists(self.layout.state) and self.init.group.has_container())

    def see(self) -> State:
        """Return the state, also if init has just ended and init's task hasn't run yet.

        Not for use within an operation: the operation's state would change during the operation.
        """
        self.init.end.look()
        return self.refresh()

    def refresh(self) -> State:
        """Return the state; the owner of a foreign container may have changed the state."""
        held = self.held
        if self.state is not State.DELETING and not held and not self.stands():
            self.state = State.DELETED
        elif not held and self.state is State.CREATED and self.was_started():
            self.state = State.RUNNING
            self.init.gate.look_again()
        if self.state in (State.RUNNING, State.STOPPING):
            self.state = State.STOPPING if self.stops or self.asked() else State.RUNNING
        return self.state

    def asked(self) -> Asked | None:
        """Return the running stop of any supervisor, if the stop is recorded.

        If the supervisor was killed and no other one has continued the stop, the record counts no
        more when the stop's time is over.
        """
        with contextlib.suppress(SupervisorError, OSError):
            asked = read_asked(self.layout.init.stopping)
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if asked is not None and now_ns - self.shared.deadlines.kill * 1e9 < asked.until_ns:
                return asked
        return None

    def was_started(self) -> bool:
        """Whether a supervisor has seen the runtime start the container."""
        return os.path.lexists(self.layout.init.started)

    def was_just_started(self) -> bool:
        """Whether init may still be the runtime's own program, which executes the user's."""
        with contextlib.suppress(OSError):
            return time.time() - os.stat(self.layout.init.started).st_mtime < GATE_SECONDS
        return False

    def mark_started(self) -> None:
        """Write the mark ``started``, so that adoption needn't ask the runtime.

        If the mark can't be written (a full disk), the next open asks the runtime.
        """
        with contextlib.suppress(OSError, InfrastructureError):
            write_new(self.layout.init.started, b"")

    def own(self, lock: Lock) -> None:
        """Own a container that was foreign, with the acquired lock; execs have other locks."""
        self.lock = lock
        self.init.own()

    def disown(self) -> None:
        """Make the container foreign again: the lock isn't ours."""
        self.lock = None
        self.init.disown()

    def dismiss(self) -> None:
        """End the tasks that watch the processes, and close our ends of the streams.

        The container isn't ours from now on: nothing of the container is removed.
        """
        self.lock = None
        self.close_streams()
        for process in (self.init, *self.execs.values()):
            process.dismiss()

    def write_off(self, why: str) -> None:
        """Dismiss a container that can't be watched any more; tasks that wait get ``why``."""
        for process in (self.init, *self.execs.values()):
            process.write_off(why)
        self.dismiss()

    @contextlib.contextmanager
    def operating(self) -> Iterator[None]:
        """Run an operation; the supervisor's closing cancels and undoes the operation.

        After the close the directory may belong to another supervisor, so nothing is done there.

        Raises:
            SupervisorClosed: the supervisor is closing, or began to close meanwhile.
        """
        self.shared.require_open(self.record.id)
        with self.operations.under_way() as scope:
            yield
        if scope.cancelled_caught:
            raise SupervisorClosed("the supervisor was closed meanwhile", container=self.record.id)

    def require_own(self, operation: str) -> None:
        """Refuse an operation that only the owner may do, if we aren't the owner."""
        self.shared.require_open(self.record.id, deletes=operation == "delete")
        if self.lock is None:
            raise ContainerLocked(
                f"cannot {operation}: another living supervisor owns the container",
                container=self.record.id,
            )

    def intend(self, intent: Intent | None) -> None:
        """Record the operation that is about to begin, for the next open; only as the owner."""
        if self.held and self.record.intent is not intent:
            self.record = changed(self.record, intent=intent)
            write_whole(self.layout.state, dump(self.record))

    def let_go(self) -> None:
        """Release the lock, and close our ends of the streams; the container goes on."""
        self.close_streams()
        if self.lock is not None:
            self.lock.release()

    def close_streams(self) -> None:
        """Close our ends of all processes' fifos, also those that callers use."""
        for process in (self.init, *self.execs.values()):
            process.streams.close()
        for end in tuple(self.ends):
            end.detach()

    def _ended(self, ended: Ended) -> None:
        if ended.process == self.init.id:
            self._init_ended()
        else:
            self._exec_ended(ended.status)

    def _exec_ended(self, status: ExitStatus) -> None:
        if status.oom_killed:  # the kill is explained: no other process may count the same kill
            for process in (self.init, *self.execs.values()):
                process.group.explain()
        # Each exec costs a directory and a descriptor: without a caller that waits, some are kept.
        for process in [one for one in self.execs.values() if one.uncollected][:-_KEPT_EXECS]:
            process.abandon()

    def _init_ended(self) -> None:
        if self.refresh() not in (State.STOPPED, State.DELETED):
            self.apply(Event.EXITED)
