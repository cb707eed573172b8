"""`ProcessTask`: one shimmed process, for the library."""

from __future__ import annotations

import signal
import weakref
from typing import Any

import trio

from ..observers import Ended, Observers
from ..shim import Control, Leash, signal_line
from ..state import ProcessLayout, ProcessRecord
from ..stdio import Ends, Streams, Terminal
from ..system import Lock, Original
from ..tasks import protected, within
from ..values import (
    Deadlines,
    ExitStatus,
    InvalidValue,
    ProcessEnded,
    ProcessEvent,
    ProcessState,
    SupervisorClosed,
)
from ._delivery import Delivery
from ._ending import Ending
from ._gate import StartGate
from ._group import Group
from ._handles import Handles
from ._life import Life
from ._log import OutputLog
from ._shared import Shared


def check_signal(number: object, name: str, *, container: str, least: int = 1) -> None:
    """Raise InvalidValue, with the argument's name, if ``number`` isn't a signal's number."""
    fits = isinstance(number, int) and not isinstance(number, bool)
    if not fits or number not in range(least, signal.NSIG):
        raise InvalidValue(
            f"{name} must be a signal, {least} to {signal.NSIG - 1}, not {number!r}",
            container=container,
        )


@protected
class ProcessTask:
    """One shimmed process, owned by one Trio task. Users see it as a `Process`.

    Attributes:
        layout: the process directory.
        container: the container's id.
        id: ``"init"``, or the exec's id.
        task_name: the name of the Trio task, for people: ``web/init``.
        deadlines: how long operations may take.
        shared: what the supervisor's parts share.
        leash: what the shim watches, or None.
        keep: whether the process goes on, watched by us, when the shim is killed.
        lock: the lock of an exec that we own, released by `forget`. Set by the constructor or
            `own`; None for an init, and for an exec of another supervisor.
        life: where the process stands.
        handles: the descriptors by which we watch the process.
        gate: what the process runs.
        record_file: the file of the process's record, which is there as long as the process
            directory.
        group: the container's cgroup.
        end: how the process ends.
        control: the shim's control fifo.
        streams: our ends of the fifos.
        terminal: the terminal, if the process has one.
        delivery: what becomes of the copied streams.
        log: the log, if the output goes to one.
        collected: set when a caller knows the exit status, or no caller ever will.
        launching: the scope of the launch, cancelled by `give_up`.
        watching: the scope of the watch, cancelled by `dismiss`.
        kept_by_others: whether other processes hold ``exit`` open. Set by the watch, when the
            process has ended.
        shown: the users' `Process`, by a weak reference. Set by `process_of`; None before.
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
        lock: Lock | None = None,
        keep: bool = False,
        init: ProcessTask | None = None,
        observers: Observers,
    ) -> None:
        self.shared: Shared = shared
        self.keep: bool = keep
        self.layout: ProcessLayout = layout
        self.container: str = container
        self.leash: Leash | None = leash
        self.lock: Lock | None = lock
        self.life: Life = Life(container, layout.id)
        self.handles: Handles = Handles(keep=keep)
        self.gate: StartGate = StartGate(layout, record, self.life)
        self.record_file: Original = Original(layout.record)
        self.group: Group = Group(shared, (init or self).record_file, cgroup)
        self.end: Ending = Ending(
            shared,
            layout,
            self.life,
            handles=self.handles,
            gate=self.gate,
            group=self.group,
            init=None if init is None else init.end,
            keep=keep,
            owned=owned,
            notify=lambda status: observers.notify(Ended(container, layout.id, status)),
        )
        self._add_parts(record, ends, observers)

    def _add_parts(self, record: ProcessRecord, ends: Ends, observers: Observers) -> None:
        """Add names, scopes, and the objects for the shim and the streams; open nothing."""
        self.id: str = self.layout.id
        self.task_name: str = f"{self.container}/{self.id}"
        self.deadlines: Deadlines = self.shared.deadlines
        self.shown: weakref.ref[Any] | None = None
        self.collected: trio.Event = trio.Event()
        self.launching: trio.CancelScope = trio.CancelScope()
        self.watching: trio.CancelScope = trio.CancelScope()
        self.kept_by_others: bool = False
        layout, container = self.layout, self.container
        self.control: Control = Control(
            layout, self.record_file, container=container, opener=self.shared.opener
        )
        self.streams: Streams = Streams(
            layout, record, self.control, ends=ends, container=container, observers=observers
        )
        self.terminal: Terminal = Terminal(layout, container=container)
        self.log: OutputLog = OutputLog(layout, has_container=self.group.has_container)
        self.delivery: Delivery = Delivery(
            layout,
            record,
            self.control,
            drain=self.deadlines.drain,
            shim_gone=self.life.is_shim_gone,
            container=container,
        )

    @property
    def record(self) -> ProcessRecord:
        """What ``process.json`` says."""
        return self.gate.record

    @property
    def args(self) -> tuple[str, ...]:
        """The program and the arguments."""
        return self.gate.record.args

    @property
    def pid(self) -> int | None:
        """The pid on the host; None before the launch, or if the pid couldn't be verified."""
        return self.gate.pid

    @property
    def status(self) -> ExitStatus | None:
        """How the process ended; None while it runs. Current without a turn of the loop."""
        self.end.look()
        return self.end.status

    def give_up(self) -> None:
        """Cancel the launch, if that is still under way."""
        self.launching.cancel()

    # ---- the owner --------------------------------------------------------------------------

    def own(self, lock: Lock | None = None) -> None:
        """Become the owner in place of another supervisor; ``lock`` is an exec's lock."""
        self.lock = lock
        self.streams.own(hold=self.keep)
        self.end.own()

    def disown(self) -> None:
        """Let another supervisor be the owner again."""
        self.streams.disown()
        self.end.disown()

    def dismiss(self) -> None:
        """End the task that watches the process; the process goes on."""
        self.watching.cancel()
        self.life.give_up()
        if self.life.state in (ProcessState.LAUNCHING, ProcessState.GONE):
            self.life.note(ProcessEvent.LEAVE)  # in other states `watch_process` does
        self.abandon()

    def write_off(self, why: str) -> None:
        """Dismiss a process whose files are gone; ``why`` explains an unknown exit status."""
        self.dismiss()
        self.end.write_off(why)

    def close(self) -> None:
        """Close all that the task has open."""
        if self.shared.opener.elsewhere():
            self.streams.close()  # in a forked child no task waits for the streams
        self.streams.release()
        self.terminal.close()
        self.handles.close()

    # ---- for users --------------------------------------------------------------------------

    async def wait(self) -> ExitStatus:
        """Wait until the process has ended; see `Process.wait`."""
        if self.end.status is None:
            self.shared.opener.require(self.container)
        await self.life.wait_over()
        if self.end.status is None:
            if not self.life.closed:
                self.life.require_possible()
            why = self.life.why_unknown(self.shared.root)
            raise SupervisorClosed(why, container=self.container)
        self.collected.set()
        await self._wait_forgotten()
        return self.end.status

    async def _wait_forgotten(self) -> None:
        """Return when the id of an ended exec is free, unless other processes keep the shim.

        Those may still write to the log or to a copied stream, or be attached to the terminal.
        """
        ours = self.end.owned.value and (not self.kept_by_others or self.terminal.in_hand)
        if self.record.exec and ours:
            with within(self.deadlines.shim):
                await self.life.wait_free()

    def require_alive(self, operation: str) -> None:
        """Refuse an operation on a process that isn't alive.

        Raises:
            ProcessEnded: the process has ended, or was never launched (`LaunchFailed`).
            IllegalTransition: the process is still being launched.
        """
        self.life.require_launched(operation)
        if self.end.has_come():
            raise self._ended()

    def _ended(self) -> ProcessEnded:
        status = "" if self.end.status is None else f": {self.end.status}"
        return ProcessEnded(f"its process {self.id} has ended{status}", container=self.container)

    def send_signal(self, number: int) -> None:
        """Send a signal; see `Process.send_signal`."""
        check_signal(number, "number", container=self.container, least=0)
        self.shared.opener.require(self.container)
        self.require_alive("send a signal")
        if number == signal.SIGKILL:
            self.end.note_killed()
            self.group.thaw()
        if self.handles.process is not None:
            try:
                self.handles.process.send_signal(number)
            except ProcessEnded as error:  # and was reaped since the look
                raise self._ended() from error
        else:
            self.control.send(signal_line(number))

    @property
    def has_shim(self) -> bool:
        """Whether this task watches the shim, and will reap it."""
        return self.handles.shim is not None and not self.watching.cancel_called

    def kill_shim(self) -> None:
        """Send SIGKILL to the shim: it is stuck, and the container is being deleted."""
        if self.handles.shim is not None:
            self.handles.shim.kill()

    # ---- an ended exec ----------------------------------------------------------------------

    def abandon(self) -> None:
        """Don't keep the ended process until a caller has waited for it: no caller will."""
        self.collected.set()

    @property
    def uncollected(self) -> bool:
        """Whether the process has ended and is ours, and no caller has waited."""
        return self.end.status is not None and self.end.owned.value and not self.collected.is_set()

    def forget(self) -> None:
        """Release the lock: the task is done. The id is free, unless the task was dismissed."""
        if self.lock is not None:
            self.lock.release()
        self.life.note(ProcessEvent.FORGET)
