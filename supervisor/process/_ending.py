"""Settle how one process ended: find out, write ``result.json``, notify the observers."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable
from typing import Final

import attrs
import trio
from trio_util import AsyncValue

from ..observers import Point
from ..spec import behind_init
from ..state import ProcessLayout, Result, dump, read_refused
from ..system import is_pid_1, look_at, write_whole
from ..tasks import protected, within
from ..values import (
    Cause,
    ExitStatus,
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

_RECORD_MS: Final = 10


@protected
class Ending:
    """How one process ends.

    Attributes:
        status: the exit status. Set by `tell`; None until then.
        owned: whether we settle the exit status: otherwise another supervisor does.
        killed_waiting: whether we killed the process while it waited to be started. Set by
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
        notify: Callable[[ExitStatus], None],
    ) -> None:
        self._shared = shared
        self._layout = layout
        self._life = life
        self._handles = handles
        self._gate = gate
        self._group = group
        self._init = init  # for an exec: the container's init; for an init: None
        self._keep = keep
        self._notify = notify
        self._loop = trio.lowlevel.current_trio_token()
        self.status: ExitStatus | None = None
        self.owned: AsyncValue[bool] = AsyncValue(owned)
        self.killed_waiting: bool = False
        self._killed = False  # whether we have killed the process; set by `note_killed`
        self._at = math.inf  # the monotonic time when the status became known; set by `tell`
        self._patience_ms = _RECORD_MS  # how long `look` waits for the shim's record; 0 afterwards
        self._falls_with_init = False  # whether the init is a pid 1; set by `look_at_init`
        # The scope that waits for the owner's record. Made by each `settle`.
        self._asking = trio.CancelScope()

    def own(self) -> None:
        """Settle the exit status from now on, in place of another supervisor."""
        self.owned.value = True
        self._asking.cancel()  # no other supervisor will write the record

    def disown(self) -> None:
        """Leave the settling to another supervisor again."""
        self.owned.value = False

    def note_killed(self) -> None:
        """Note that we kill the process, or the whole cgroup: that explains a SIGKILL."""
        if not self._killed:
            self.killed_waiting = self._gate.waits()  # after the kill this can't be seen
        self._killed = True

    def outlive(self, kills: int) -> None:
        """Note that the first ``kills`` OOM kills hit other processes: this process lives."""
        if not self.has_come():
            self._group.before = max(self._group.before, kills)

    def look_at_init(self) -> None:
        """Note whether the kernel kills the process when the container's init ends."""
        self._falls_with_init = self._init is not None and self._init.is_of_pid_1()

    def is_of_pid_1(self) -> bool:
        """Whether the process is a pid 1."""
        return is_pid_1(self._gate.pid)

    # ---- has the process ended? -----------------------------------------------------------

    def look(self) -> None:
        """Settle the exit status now, if the process has ended and the task had no turn since.

        While the process lives, this costs two system calls. After the process has ended, the shim
        records the status, mostly within 0.1 ms: the first look waits for that, up to
        `_RECORD_MS`. Later looks, and looks from other threads, show what the task has seen.
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
        """Whether the process has ended, recorded or not: then no signal can reach it."""
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
        # None: hidden (see `look_at`), or reaped since the first look.
        return process.ended() if now is None else now.exiting

    def refused(self) -> int | None:
        """Return the error number for which an init couldn't run the program; None if it could.

        Known when the init has exited, with 126 or 127.
        """
        with contextlib.suppress(StateCorrupt, OSError):
            return read_refused(self._layout.refused)
        return None

    def is_output_complete(self) -> bool:
        """Whether no more output is expected."""
        late = time.monotonic() >= self._at + self._shared.deadlines.drain
        return self._life.is_shim_gone() or late

    async def wait_output_complete(self) -> None:
        """Return when process and output have ended, or ``deadlines.drain`` after the process."""
        await self._life.wait_over()
        if self.status is None:  # the supervisor was closed
            return
        left = self._at + self._shared.deadlines.drain - time.monotonic()
        with within(max(0.0, left)):
            await self._life.wait_shim_gone()

    # ---- settle the exit status -----------------------------------------------------------

    async def settle(self, *, lost: ExitStatus | None = None) -> None:
        """Find out how the process ended, record the exit status, and notify all that wait.

        ``lost`` is the status if the shim recorded none and the process can't be found.
        """
        lost_process = self._lost(lost)
        status = None
        if not self.owned.value:
            self._asking = trio.CancelScope()  # cancelled when the process becomes ours
            with self._asking:
                status = await lost_process.foreign_verdict()
        if status is None or self.owned.value:
            status = await lost_process.verdict()
        self._record(status)

    def settle_recorded(self) -> None:
        """Settle at once if the shim has recorded an exit status: nearly always it has."""
        status = self._lost(None).recorded()
        if status is not None:
            self._record(status)

    async def settle_again(self, found: Found) -> None:
        """Settle once more, now as the owner: the former owner may not have written the record."""
        try:
            if found.status is not None:
                self.tell(found.status)
            elif found.finding is not Finding.RUNNING:
                lost_process = attrs.evolve(self._lost(found.lost), process=found.process)
                self._record(await lost_process.verdict())
        finally:
            found.close()

    def write_off(self, why: str) -> None:
        """If the status isn't known, take the kernel's, or *unknown* with the reason ``why``."""
        if self.status is None:
            self.tell(self._lost(None).told_by_kernel(why))

    def tell(self, status: ExitStatus) -> None:
        """Set the exit status, and notify all that wait for it."""
        self.status = status
        self._at = time.monotonic()
        self._notify(status)
        self._life.note(ProcessEvent.SETTLED)

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
                # Nothing is lost: the next open still finds the shim's record.
                logger.warning("cannot write %s: %s", self._layout.result, error)
            self._shared.observers.notify(Point.SETTLED)
        self.tell(status)

    def _with_oom(self, status: ExitStatus) -> ExitStatus:
        told = self._by_tiny_init(status)
        if (status.signal != signal.SIGKILL and not told) or self._killed:
            return status  # not SIGKILL, or our own SIGKILL
        if not self._group.unexplained():
            return status
        if self._falls_with_init and self._init is not None and self._init.is_near():
            return status  # when a pid 1 ends, the kernel kills all others in the pid namespace
        cause = status.cause if told else Cause.OUT_OF_MEMORY
        return attrs.evolve(status, cause=cause, oom_killed=True)

    def _by_tiny_init(self, status: ExitStatus) -> bool:
        """Whether the exit code, 137, of an ``init=True`` init means that SIGKILL hit the program.

        The init exits with 137 when it can't report to the shim: the shim was killed, the runtime
        passes on no descriptors, the container was restored from a checkpoint or is of an earlier
        version.
        """
        told = self._gate.record.init_tells and status.source is Source.SHIM
        behind = behind_init(self._gate.args) is not None and not told
        return behind and status.code == 128 + signal.SIGKILL
