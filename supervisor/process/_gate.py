"""What a process runs: first a gate that waits to be started, then the user's program."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from ..state import ProcessLayout, ProcessRecord, dump
from ..system import Identity, program_of, real_time, would_act_on, write_whole
from ..tasks import nap, within
from ..values import SupervisorError
from ._evidence import load_process
from ._life import Life

logger: Final = logging.getLogger("supervisor")

GATE_SECONDS: Final = 0.5  # at most, from the runtime's start to the user's program
_GATE_POLL_SECONDS: Final = 0.002
_LEAST_POLL_SECONDS: Final = 0.002
_MOST_POLL_SECONDS: Final = 0.05
_BLOCKED_LOOKS: Final = 7  # in a row, 0.1 s or more: a program's start blocks signals for less


class StartGate:
    """The gate: a program, of the runtime or of a pool, that waits to be started.

    Attributes:
        record: the ``process.json``; for the init of a taken pooled container, ``program.json``.
        pid: the pid on the host. Set by the launch or the adoption; None before, and if the pid
            couldn't be verified.
        reports: whether the gate reports to the pool that made the container. Set by the create;
            False after an adoption, since that pool is gone.
    """

    def __init__(self, layout: ProcessLayout, record: ProcessRecord, life: Life) -> None:
        self._layout = layout
        self._life = life
        self.record: ProcessRecord = record
        self.pid: int | None = None
        self.reports: bool = False
        # The waiting program. Set by `note` and `mark_waiting`; None if unknown, or for an exec,
        # which doesn't wait.
        self._gate: Identity | None = None
        self._until = math.inf  # set by `mark_waiting`: when to stop trusting `_gate`

    @property
    def args(self) -> tuple[str, ...]:
        """The program and the arguments."""
        return self.record.args

    def become(self, process: Mapping[str, Any]) -> None:
        """Record the program, an OCI process object, that the gate becomes."""
        self.record = attrs.evolve(
            self.record, args=process["args"], env=process.get("env", ()), cwd=process["cwd"]
        )
        try:
            write_whole(self._layout.program, dump(self.record))
        except OSError as error:
            logger.warning("cannot write %s: %s", self._layout.program, error)

    def look_again(self) -> None:
        """Read the record anew: through another supervisor the gate may have become a program."""
        with contextlib.suppress(SupervisorError, OSError):
            self.record = load_process(self._layout)

    def note(self) -> None:
        """Note which program is the gate, if that isn't known yet."""
        if self._gate is None and self.pid is not None:
            self._gate = program_of(self.pid)

    def mark_waiting(self, *, seconds: float = math.inf) -> None:
        """Note that the process waits to be started: what runs now is the gate.

        That is trusted for ``seconds``, since the user's program may already run.
        """
        self._until = time.monotonic() + seconds
        self._gate = None if self.pid is None else program_of(self.pid)

    def waits(self) -> bool:
        """Whether the process still runs the program that waits to be started."""
        if self.pid is None or self._gate is None or time.monotonic() > self._until:
            return False
        return program_of(self.pid) == self._gate

    async def has_begun(self, seconds: float) -> bool:
        """Return whether the process runs the user's program; wait ``seconds`` for that.

        Until then the process runs the gate.
        """
        found = self._has_opened()
        if found is None:
            with within(seconds):
                while found is None:
                    await nap(_GATE_POLL_SECONDS)
                    found = self._has_opened()
        return bool(found)

    def _has_opened(self) -> bool | None:
        """Whether the process runs the user's program; None while the process runs the gate."""
        if self.pid is None or self._gate is None:
            return False
        now = program_of(self.pid)
        return None if now == self._gate else now is not None

    async def prepared(self, number: int) -> None:
        """Return when the process would act on a signal, or has ended.

        PID 1 ignores a signal without a handler: a signal that comes too early is lost.
        """
        gate_until = min(self._until, time.monotonic() + GATE_SECONDS)
        pause = _LEAST_POLL_SECONDS
        blocked = 0
        # Under a mock clock the pauses grow without a limit, so that the clock gets to its jump.
        most = _MOST_POLL_SECONDS if real_time() is None else math.inf
        while not self._life.is_over() and self.pid is not None:
            gate = self._gate if time.monotonic() < gate_until else None
            acts = would_act_on(self.pid, number, gate=gate)
            blocked = blocked + 1 if acts is None else 0
            if acts or blocked == _BLOCKED_LOOKS:
                return
            with within(pause, still=False):  # the grace limits the whole wait
                await self._life.wait_over()
            pause = min(2 * pause, most)
