"""What a process runs: first a program that waits to be started, then the user's program."""

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

GATE_SECONDS: Final = 0.5  # from the runtime's start to the program; who looks on may mistake it
_GATE_POLL_SECONDS: Final = 0.002
_LEAST_POLL_SECONDS: Final = 0.002
_MOST_POLL_SECONDS: Final = 0.05
_BLOCKED_LOOKS: Final = 7  # in a row; at least 0.1 seconds: no start of a program takes that long


class StartGate:
    """The program that waits to be started, of the runtime or of a pool, and what comes after.

    Attributes:
        record: the ``process.json``; of a pooled container's init, what the taker made of it.
        pid: the pid on the host. Set by the launch or the adoption; None before, and if the pid
            couldn't be verified.
    """

    def __init__(self, layout: ProcessLayout, record: ProcessRecord, life: Life) -> None:
        self._layout = layout
        self._life = life
        self.record: ProcessRecord = record
        self.pid: int | None = None
        # The waiting program. Set by `note` and `mark_waiting`; None if it isn't known, or for an
        # exec, which doesn't wait.
        self._gate: Identity | None = None
        self._until = math.inf  # set by `mark_waiting`: until when `_gate` is believed

    @property
    def args(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return self.record.args

    def become(self, process: Mapping[str, Any]) -> None:
        """Put on record that the gate becomes this program: an OCI process object."""
        self.record = attrs.evolve(
            self.record, args=process["args"], env=process.get("env", ()), cwd=process["cwd"]
        )
        try:
            write_whole(self._layout.program, dump(self.record))
        except OSError as error:
            logger.warning("cannot write %s: %s", self._layout.program, error)

    def look_again(self) -> None:
        """Read the record anew: another supervisor may have had the gate become a program."""
        with contextlib.suppress(SupervisorError, OSError):
            self.record = load_process(self._layout)

    def note(self) -> None:
        """Take note of what runs while it waits to be started, if that isn't known yet."""
        if self._gate is None and self.pid is not None:
            self._gate = program_of(self.pid)

    def mark_waiting(self, *, seconds: float = math.inf) -> None:
        """Take note that the process waits to be started: what it runs is the runtime's program.

        Where that may be the user's already, it is believed for so many seconds.
        """
        self._until = time.monotonic() + seconds
        self._gate = None if self.pid is None else program_of(self.pid)

    def waits(self) -> bool:
        """Whether the process still runs the program that waits to be started."""
        if self.pid is None or self._gate is None or time.monotonic() > self._until:
            return False
        return program_of(self.pid) == self._gate

    async def has_begun(self, seconds: float) -> bool:
        """Whether the process runs the user's program, or does so within ``seconds``.

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

    async def prepared(self, number: int) -> None:
        """Return when a signal would be acted on, or the process has ended.

        PID 1 ignores a signal without a handler: one that is sent too early is lost.
        """
        gate_until = min(self._until, time.monotonic() + GATE_SECONDS)
        pause = _LEAST_POLL_SECONDS
        blocked = 0
        # A clock that jumps after a while without a turn of the loop shall come to that.
        most = _MOST_POLL_SECONDS if real_time() is None else math.inf
        while not self._life.is_over() and self.pid is not None:
            gate = self._gate if time.monotonic() < gate_until else None
            acts = would_act_on(self.pid, number, gate=gate)
            blocked = blocked + 1 if acts is None else 0
            if acts or blocked == _BLOCKED_LOOKS:
                return
            with within(pause, still=False):  # how long, the grace says
                await self._life.wait_over()
            pause = min(2 * pause, most)
