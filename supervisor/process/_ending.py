"""How one process ends: found out, put on record in ``result.json``, and told to all listeners."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio
from trio_util import AsyncValue

from ..spec import behind_init
from ..state import ProcessLayout, Result, dump, read_refused
from ..system import is_pid_1, look_at, write_whole
from ..tasks import protected, within
from ..values import (
    Cause,
    ExitStatus,
    Point,
    ProcessEvent,
    ProcessState,
    Source,
    StateCorrupt,
    TooManyFiles,
)
from ._evidence import Finding, Found
from ._gate import StartGate
from ._group import Group
from ._handles import Handles
from ._life import Life
from ._shared import Shared
from ._verdict import LostProcess

logger: Final = logging.getLogger("supervisor")

Listener = Callable[[ExitStatus], None]

_RECORD_MS: Final = 10


@protected
class Ending:
    """The end of one process.

    Attributes:
        status: how the process ended. Set by `tell`; None until then.
        owned: whether we settle the end: else another supervisor does.
        killed_waiting: whether we have killed the process while it waited to be started. Set by
            `note_killed`.
    """

    def __init__(
        self,
        shared: Shared,
        layout: ProcessLayout,
        life: Life,
        *,
        handles: Handles,
        gate: StartGate,
        group: Group,
        init: Ending | None,
        keep: bool,
        owned: bool,
        when_ended: Listener,
    ) -> None:
        self._shared = shared
        self._layout = layout
        self._life = life
        self._handles = handles
        self._gate = gate
        self._group = group
        self._init = init  # of an exec; None for an init
        self._keep = keep
        self._listeners = [when_ended]
        self._loop = trio.lowlevel.current_trio_token()
        self.status: ExitStatus | None = None
        self.owned: AsyncValue[bool] = AsyncValue(owned)
        self.killed_waiting: bool = False
        self._killed = False  # whether we have killed it; set by `note_killed`
        self._at = math.inf  # when the end was told, by the monotonic clock; set by `tell`
        self._patience_ms = _RECORD_MS  # how long `look` waits for the shim's record; 0 afterwards
        self._falls_with_init = False  # whether the init is a pid 1; set by `look_at_init`
        # What waits for the record of the supervisor that owns the process. Made by each `settle`.
        self._asking = trio.CancelScope()

    def own(self) -> None:
        """Settle the end from now on, in place of another supervisor."""
        self.owned.value = True
        self._asking.cancel()  # nobody else will tell

    def disown(self) -> None:
        """Leave the end to another supervisor again."""
        self.owned.value = False

    def note_killed(self) -> None:
        """Take note that we kill it, or all of its cgroup: its end needs no other explanation."""
        if not self._killed:
            self.killed_waiting = self._gate.waits()  # afterwards nobody can tell
        self._killed = True

    def outlive(self, kills: int) -> None:
        """Take note that so many out-of-memory kills so far were of others: the process lives."""
        if not self.has_come():
            self._group.before = max(self._group.before, kills)

    def look_at_init(self) -> None:
        """Take note of whether the process falls with its container's init."""
        self._falls_with_init = self._init is not None and self._init.is_of_pid_1()

    def is_of_pid_1(self) -> bool:
        """Whether this is the end of a pid 1."""
        return is_pid_1(self._gate.pid)

    # ---- has it come? ---------------------------------------------------------------------

    def look(self) -> None:
        """Settle the end now, if the process has ended: its task may not have had its turn yet.

        While the process lives that is two system calls. Once it has ended, its shim has yet to
        record that, mostly within a tenth of a millisecond: the shim has a moment for it, once.
        Later, and from another thread, what is known is what the task has seen.
        """
        exit, process = self._handles.exit, self._handles.process
        if self.status is not None or exit is None:
            return
        if self._life.state is ProcessState.LAUNCHING or not self._is_here():
            return
        if exit.watched():
            if process is None or not process.ended():
                return
            patience, self._patience_ms = self._patience_ms, 0
            if not exit.ends_within(patience):
                return
        with contextlib.suppress(TooManyFiles):
            self.settle_recorded()

    def _is_here(self) -> bool:
        """Whether this is our event loop, in our process."""
        try:
            here = trio.lowlevel.current_trio_token() is self._loop
        except RuntimeError:
            return False
        return here and not self._shared.opener.elsewhere()

    def has_come(self) -> bool:
        """Whether the process has ended, recorded or not: from then on no signal reaches it."""
        self.look()
        process = self._handles.process
        return self.status is not None or (process is not None and process.ended())

    def is_near(self) -> bool:
        """Whether the process has ended, or is about to."""
        process = self._handles.process
        if self.status is not None or process is None:
            return self.status is not None or not self._handles.watched()
        if process.ended():
            return True
        now = look_at(process.pid)
        # Hidden (see `look_at`), or reaped since the first look.
        return process.ended() if now is None else now.exiting

    def refused(self) -> int | None:
        """Return why an init couldn't run the program, the system's error number; None if it did.

        Known once it has ended, with 126 or 127.
        """
        with contextlib.suppress(StateCorrupt, OSError):
            return read_refused(self._layout.refused)
        return None

    def is_output_complete(self) -> bool:
        """Whether nothing more is to be expected of the output."""
        late = time.monotonic() >= self._at + self._shared.deadlines.drain
        return self._life.is_gone() or late

    async def wait_output_complete(self) -> None:
        """Return when the process has ended, and its output, or ``deadlines.drain`` has passed."""
        await self._life.wait_over()
        left = self._at + self._shared.deadlines.drain - time.monotonic()
        with within(max(0.0, left)):
            await self._life.wait_gone()

    # ---- settle it ------------------------------------------------------------------------

    async def settle(self, *, lost: ExitStatus | None = None) -> None:
        """Find out how the process ended, record that, and tell everybody who waits.

        ``lost`` is the status if its shim recorded nothing and the process can't be found.
        """
        lost_process = self._lost(lost)
        status = None
        if not self.owned.value:
            self._asking = trio.CancelScope()  # it ends when the process becomes ours
            with self._asking:
                status = await lost_process.foreign_verdict()
        if status is None or self.owned.value:
            status = await lost_process.verdict()
        self._record(status)

    def settle_recorded(self) -> None:
        """Do that at once if the shim has recorded the end, as it nearly always has."""
        status = self._lost(None).recorded()
        if status is not None:
            self._record(status)

    async def settle_again(self, found: Found) -> None:
        """Settle as the owner what was settled as another's, and may not be on record."""
        try:
            if found.status is not None:
                self.tell(found.status)
            elif found.finding is not Finding.RUNNING:
                lost_process = attrs.evolve(self._lost(found.lost), process=found.process)
                self._record(await lost_process.verdict())
        finally:
            found.close()

    def write_off(self, why: str) -> None:
        """Tell what the kernel says of the end, or ``why`` that isn't known; unless it was told."""
        if self.status is None:
            self.tell(self._lost(None).told_by_kernel(why))

    def tell(self, status: ExitStatus) -> None:
        """Tell everybody who waits how the process ended."""
        self.status = status
        self._at = time.monotonic()
        for listener in tuple(self._listeners):
            listener(status)
        self._life.note(ProcessEvent.SETTLED)

    @contextlib.contextmanager
    def when_ended(self, listener: Listener) -> Iterator[None]:
        """Call ``listener`` if the process ends inside the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _lost(self, lost: ExitStatus | None) -> LostProcess:
        return LostProcess(
            shared=self._shared,
            layout=self._layout,
            process=self._handles.process,
            cgroup=None if self._gate.record.exec else self._group.path,
            lost=lost,
            keep=self._keep,
        )

    def _record(self, status: ExitStatus) -> None:
        status = self._with_oom(status)
        if self.owned.value and not self._shared.opener.elsewhere():
            try:
                kills = 0 if self._gate.record.exec else self._group.oom_kills()
                write_whole(self._layout.result, dump(Result(status=status, oom_kills=kills)))
            except OSError as error:
                # Nothing is lost: what the shim recorded is still there for the next open.
                logger.warning("cannot write %s: %s", self._layout.result, error)
            self._shared.reach(Point.SETTLED)
        self.tell(status)

    def _with_oom(self, status: ExitStatus) -> ExitStatus:
        told = self._by_tiny_init(status)
        if (status.signal != signal.SIGKILL and not told) or self._killed:
            return status  # a SIGKILL of ours explains itself
        if not self._group.unexplained():
            return status
        if self._falls_with_init and self._init is not None and self._init.is_near():
            return status  # the kernel kills all others in the namespace of a pid 1 that ends
        cause = status.cause if told else Cause.OUT_OF_MEMORY
        return attrs.evolve(status, cause=cause, oom_killed=True)

    def _by_tiny_init(self, status: ExitStatus) -> bool:
        """Whether it is the init of ``init=True`` that means a SIGKILL by an exit code.

        It does where it couldn't tell its shim: where that was killed, with a runtime that hands on
        no descriptors, restored from a checkpoint, and in containers of an earlier version.
        """
        told = self._gate.record.init_tells and status.source is Source.SHIM
        behind = behind_init(self._gate.args) is not None and not told
        return behind and status.code == 128 + signal.SIGKILL
