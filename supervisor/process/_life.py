"""The state of one process, and waiting for a state. The table is in `values._process_life`."""

from __future__ import annotations

from typing import Final

from trio_util import AsyncValue

from ..values import (
    IllegalTransition,
    LaunchFailed,
    ProcessEvent,
    ProcessState,
    next_process_state,
)

_FREE: Final = {ProcessState.FORGOTTEN, ProcessState.LEFT}
_GONE: Final = {ProcessState.GONE, *_FREE}
_OVER: Final = {ProcessState.ENDED, *_GONE}
_SHIM_GONE: Final = {ProcessState.GONE, ProcessState.FORGOTTEN}


class Life:
    """The state of one process: nothing else assigns the state.

    Attributes:
        failure: why the launch failed, for people. Set by `fail`; None otherwise.
        closed: whether the supervisor's close has ended the launch. Set by `fail`.
    """

    def __init__(self, container: str, id: str) -> None:
        self._container = container
        self._id = id
        self.failure: str | None = None
        self.closed: bool = False
        self._state = AsyncValue(ProcessState.LAUNCHING)
        self._given_up = False  # whether the files are gone, or never came; set by `give_up`

    @property
    def state(self) -> ProcessState:
        """Where the process stands."""
        return self._state.value

    def note(self, event: ProcessEvent) -> None:
        """Go to the state that ``event`` leads to, and wake the tasks that wait for that state."""
        self._state.value = next_process_state(
            self._state.value, event, name=f"{self._container}/{self._id}"
        )

    def is_over(self) -> bool:
        """Whether the process, or the task that watches it, has ended: no more will be known."""
        return self._state.value in _OVER

    def is_gone(self) -> bool:
        """Whether the shim has exited too, or no task of ours waits for the shim."""
        return self._state.value in _GONE

    def is_shim_gone(self) -> bool:
        """Whether no more output comes. A closed supervisor's shim may still copy output."""
        return self._given_up or self._state.value in _SHIM_GONE

    def give_up(self) -> None:
        """Note that the process was dismissed, or never made: no more output is expected."""
        self._given_up = True

    def fail(self, why: str, *, closed: bool) -> None:
        """Note that the process was never made: ``closed`` if a close has ended the launch."""
        self.failure = why
        self.closed = closed
        self.give_up()
        self.note(ProcessEvent.LAUNCH_FAILED)

    def require_possible(self) -> None:
        """Refuse to wait for, or read from, a process whose launch has failed.

        Raises:
            LaunchFailed: there is no process, and never will be.
        """
        if self.failure is not None:
            raise LaunchFailed(
                f"process {self._id} never ran: {self.failure}", container=self._container
            )

    def why_unknown(self, root: str) -> str:
        """Return why a closed supervisor of ``root`` knows no exit status, for people."""
        if self.failure is not None:
            return f"process {self._id} never ran: {self.failure}"
        return (
            f"its supervisor was closed before {self._id} ended: adopt the container with another "
            f"supervisor of {root}, and wait there"
        )

    def require_launched(self, operation: str) -> None:
        """Refuse an operation on a process that isn't there, or not yet.

        Raises:
            LaunchFailed: as `require_possible`.
            IllegalTransition: the process is still being launched.
        """
        self.require_possible()
        if self.state is ProcessState.LAUNCHING:
            raise IllegalTransition(
                f"cannot {operation}: process {self._id} is still being launched; try again when "
                "the call of exec has returned, or cancel that call",
                state=self.state.value,
                event=operation,
                container=self._container,
            )

    async def wait_over(self) -> None:
        """Return when the process has ended, the launch has failed, or the task has ended."""
        await self._state.wait_value(_OVER.__contains__)

    async def wait_gone(self) -> None:
        """Return when the shim has exited and only files are left, or the task has ended."""
        await self._state.wait_value(_GONE.__contains__)

    async def wait_shim_gone(self) -> None:
        """Return when no more output comes."""
        await self._state.wait_value(lambda _: self.is_shim_gone())

    async def wait_free(self) -> None:
        """Return when the task of an exec has removed the exec's directory, or has ended."""
        await self._state.wait_value(_FREE.__contains__)
