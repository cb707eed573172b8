"""The task that owns one shimmed process, from its launch to the end of its shim."""

from __future__ import annotations

import logging
import signal
import weakref
from typing import Any, Final

import trio

from ..shim import Control, Leash, signal_line
from ..state import ProcessLayout, ProcessRecord
from ..stdio import Ends, Streams, Terminal
from ..system import Lock
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
from ._ending import Ending, Listener
from ._gate import StartGate
from ._group import Group
from ._handles import Handles
from ._life import Life
from ._log import OutputLog
from ._shared import Shared

logger: Final = logging.getLogger("supervisor")

_LAST_MOMENT_SECONDS: Final = 0.1
_SCARCITY_SECONDS: Final = 0.05
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
        id: ``"init"``, or the exec's id.
        task_name: the name of its task, for people: ``web/init``.
        deadlines: how long operations may take.
        shared: what its supervisor's parts share.
        leash: what its shim watches, or None.
        keep: whether it goes on, watched by us, when its shim is killed.
        lock: that of an exec that is ours, released by `forget`. Set by the constructor or `own`;
            None for an init, and for an exec of another supervisor.
        life: where the process stands.
        handles: the descriptors by which it is watched.
        gate: what it runs.
        group: its container's cgroup.
        end: how it ends.
        control: its shim's control fifo.
        streams: our ends of its fifos.
        terminal: its terminal, if it has one.
        delivery: what becomes of its streams that are copied.
        log: its log, if its output goes to one.
        collected: set when a caller knows how it has ended, or no caller ever will.
        launching: the scope of the launch, cancelled by `give_up`.
        watching: the scope of the watch, cancelled by `dismiss`.
        kept_by_others: whether others hold ``exit`` open. Set by the watch when it has ended.
        shown: the `Process` that users have of it. Set by `process_of`; None before.
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
        when_ended: Listener,
    ) -> None:
        self.shared: Shared = shared
        self.keep: bool = keep
        self.layout: ProcessLayout = layout
        self.container: str = container
        self.id: str = layout.id
        self.task_name: str = f"{container}/{layout.id}"
        self.lock: Lock | None = lock
        self.life: Life = Life(self.task_name)
        self.handles: Handles = Handles(keep=keep)
        self.gate: StartGate = StartGate(layout, record, self.life)
        self.group: Group = Group(shared, layout, cgroup)
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
            when_ended=when_ended,
        )
        self._add_parts(record, ends, leash)

    def _add_parts(self, record: ProcessRecord, ends: Ends, leash: Leash | None) -> None:
        """Add the scopes of its task, and what leads to its shim and streams; nothing is opened."""
        self.leash: Leash | None = leash
        self.deadlines: Deadlines = self.shared.deadlines
        self.shown: weakref.ref[Any] | None = None
        self.collected: trio.Event = trio.Event()
        self.launching: trio.CancelScope = trio.CancelScope()
        self.watching: trio.CancelScope = trio.CancelScope()
        self.kept_by_others: bool = False
        layout, container = self.layout, self.container
        self.control: Control = Control(layout, container=container)
        self.streams: Streams = Streams(
            layout, record, self.control, ends=ends, container=container
        )
        self.terminal: Terminal = Terminal(layout, container=container)
        self.log: OutputLog = OutputLog(layout, has_container=self.group.has_container)
        self.delivery: Delivery = Delivery(
            layout,
            record,
            self.control,
            drain=self.deadlines.drain,
            shim_gone=self.life.is_gone,
            container=container,
        )

    @property
    def record(self) -> ProcessRecord:
        """Its ``process.json``."""
        return self.gate.record

    @property
    def args(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return self.gate.record.args

    @property
    def pid(self) -> int | None:
        """Its pid on the host; None before it is made, or if it couldn't be verified."""
        return self.gate.pid

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it runs. True at once, without a turn of the loop."""
        self.end.look()
        return self.end.status

    def give_up(self) -> None:
        """End its launch, if that is still under way."""
        self.launching.cancel()

    # ---- whose it is ------------------------------------------------------------------------

    def own(self, lock: Lock | None = None) -> None:
        """Take over what another supervisor watched; ``lock`` is that of an exec."""
        self.lock = lock
        self.streams.own(hold=self.keep)
        self.end.own()

    def disown(self) -> None:
        """Leave its end to another supervisor again."""
        self.streams.disown()
        self.end.disown()

    def dismiss(self) -> None:
        """End the task that watches it; the process goes on."""
        self.watching.cancel()
        if self.life.state in (ProcessState.LAUNCHING, ProcessState.GONE):
            self.life.note(ProcessEvent.LEAVE)  # in other states `watch` does, as it ends
        self.abandon()

    def write_off(self, why: str) -> None:
        """Dismiss one whose files are gone; if its end isn't known by now, ``why`` says why."""
        self.dismiss()
        self.end.write_off(why)

    def close(self) -> None:
        """Close all that its task has open."""
        if self.shared.opener.elsewhere():
            self.streams.close()  # in a forked child nobody waits for them any more
        self.streams.release()
        self.terminal.close()
        self.handles.close()

    # ---- for its users ----------------------------------------------------------------------

    async def wait(self) -> ExitStatus:
        """Wait until it has ended; see `Process.wait`."""
        if self.end.status is None:
            self.shared.opener.require(self.container)
        await self.life.wait_over()
        if self.end.status is None:
            raise SupervisorClosed(
                f"its supervisor was closed while {self.id} ran", container=self.container
            )
        self.collected.set()
        await self._wait_forgotten()
        return self.end.status

    async def _wait_forgotten(self) -> None:
        """Return when the id of an ended exec is free, unless others keep its shim.

        They may still write to its log, or to what is copied, or be attached to its terminal.
        """
        ours = self.end.owned.value and (not self.kept_by_others or self.terminal.in_hand)
        if self.record.exec and ours:
            with within(self.deadlines.shim):
                await self.life.wait_free()

    def require_alive(self) -> None:
        """Raise ProcessEnded if it has ended."""
        if self.end.has_come():
            raise ProcessEnded(f"its process {self.id} has ended", container=self.container)

    def send_signal(self, number: int) -> None:
        """Send it a signal; see `Process.send_signal`."""
        check_signal(number, "number", container=self.container, least=0)
        self.shared.opener.require(self.container)
        self.require_alive()
        if number == signal.SIGKILL:
            self.end.note_killed()
            self.group.thaw()
        if self.handles.process is not None:
            self.handles.process.send_signal(number)
        else:
            self.control.send(signal_line(number))

    @property
    def has_shim(self) -> bool:
        """Whether its shim is watched, and reaped, from here."""
        return self.handles.shim is not None and not self.watching.cancel_called

    def kill_shim(self) -> None:
        """SIGKILL its shim: one that is stuck, of a container that is deleted."""
        if self.handles.shim is not None:
            self.handles.shim.kill()

    # ---- an exec that is done with ----------------------------------------------------------

    def abandon(self) -> None:
        """Don't keep it until somebody has waited for its end: nobody is going to."""
        self.collected.set()

    @property
    def uncollected(self) -> bool:
        """Whether it has ended, is ours, and nobody has waited for its end."""
        return self.end.status is not None and self.end.owned.value and not self.collected.is_set()

    def forget(self) -> None:
        """Release its lock: its task is done, and its id free, unless it was dismissed."""
        if self.lock is not None:
            self.lock.release()
        self.life.note(ProcessEvent.FORGET)
