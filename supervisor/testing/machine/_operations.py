"""Operations on containers as values, for generated sequences."""

from __future__ import annotations

import contextlib
import signal as _signal
from typing import Final

import attrs
import trio

from ..._supervisor import Supervisor
from ...bundle import Bundle
from ...container import Container
from ...process import check_signal
from ...state import check_id
from ...values import (
    Event,
    IllegalTransition,
    InvalidValue,
    ProcessEnded,
    State,
    check_kind,
    next_state,
)
from .._arguments import check_one_of

VERBS: Final = ("create", "start", "exec", "signal", "stop", "wait", "delete")
_STAY: Final = "trap 'exit 0' TERM; while :; do read line; done"
_GRACE_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.5


@attrs.frozen
class Operation:
    """One operation on a container: ``Operation("start", "a")``.

    Attributes:
        verb: ``"create"``, ``"start"``, ``"exec"``, ``"signal"``, ``"stop"``, ``"wait"`` or
            ``"delete"`` (by force if the container runs).
        container: the container's id.
        signal: which signal, for ``"signal"``; else None.
    """

    verb: str
    container: str
    signal: int | None = None

    def __attrs_post_init__(self) -> None:
        check_one_of(self.verb, VERBS, "verb")
        check_id(self.container, "container")
        if (self.signal is not None) != (self.verb == "signal"):
            raise InvalidValue(f"{self.verb}: give a signal for the verb signal, and only then")
        if self.signal is not None:
            check_signal(self.signal, "signal", container=self.container)

    def _refused(self, how: str, state: State | None = None) -> IllegalTransition:
        return IllegalTransition(
            f"cannot {self.verb}: the container {how}",
            state="absent" if state is None else state.value,
            event=self.verb,
            container=self.container,
        )

    def after(self, state: State | None) -> State | None:
        """Return the container's state after the operation, from the state before.

        None stands for a container that isn't there. The container's program is assumed to run
        until a signal, as the program of `perform` does.

        Raises:
            IllegalTransition: the operation isn't allowed in this state.
        """
        if (state is None) != (self.verb == "create"):
            raise self._refused("isn't there" if state is None else "is there already", state)
        if state is None:
            return State.CREATED
        if self.verb in ("signal", "wait"):
            if state is not (State.RUNNING if self.verb == "signal" else State.STOPPED):
                raise self._refused(f"is {state.value}", state)
            return State.STOPPED
        event = _EVENTS[self.verb]
        next_state(state, event, container=self.container)
        return {"start": State.RUNNING, "exec": state, "stop": State.STOPPED}.get(self.verb)

    async def perform(self, supervisor: Supervisor, bundle: Bundle) -> None:
        """Do the operation.

        Args:
            supervisor: the supervisor of the container.
            bundle: the bundle for ``"create"``; must contain a shell, ``sh``, which runs a loop.

        Raises:
            SupervisorError: as the operation does.
        """
        check_kind(supervisor, Supervisor, "supervisor")
        if self.verb == "create":
            args = ["sh", "-c", _STAY]
            await supervisor.create(self.container, bundle, args=args, stdin=-1)
            return
        box = supervisor[self.container]
        if self.verb == "start":
            await box.start()
        elif self.verb == "exec":
            await (await box.exec(["true"])).wait()
        elif self.verb == "signal":
            await _end(box, self.signal or _signal.SIGKILL)
        elif self.verb == "stop":
            await box.stop(grace=_GRACE_SECONDS)
        elif self.verb == "wait":
            await box.wait()
        else:
            await box.delete(force=True)


async def _end(box: Container, number: int) -> None:
    """Signal a container until the end: the shell may have no trap yet, or be about to read."""
    box.send_signal(number)
    while box.status is None:
        with trio.move_on_after(_AGAIN_SECONDS):
            await box.wait()
            return
        with contextlib.suppress(ProcessEnded):
            box.send_signal(number)


_EVENTS: Final = {
    "start": Event.START,
    "exec": Event.EXEC,
    "stop": Event.STOP,
    "delete": Event.FORCE_DELETE,
}
