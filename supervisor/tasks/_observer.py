"""Observers of containers: a test's witness, which names containers and sees their reports.

As a rule there is no witness, and then this module costs one look at a context variable. A task
inherits the witness of the task that starts it, so a pool that serves several examples runs its own
tasks without a witness.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import datetime
from typing import Final, Protocol

import attrs

from ..values import ExitStatus, State, moment

HISTORY_LENGTH: Final = 64
"""How many of a container's last changes are kept."""


@attrs.frozen
class Change:
    """One change of a container's state.

    Attributes:
        at_ns: the time of the change, CLOCK_REALTIME in nanoseconds.
        event: what happened to the container, or was requested; ``"adopted"`` after an adoption.
        state: the state after the event.
    """

    at_ns: int
    event: str
    state: State

    @property
    def at(self) -> datetime:
        """The time of the change, in UTC."""
        return moment(self.at_ns)


@attrs.frozen(kw_only=True, eq=False)
class ContainerReport:
    """A container as reported to a witness: now, and as it changes.

    The report may be read in another thread than the supervisor's.

    Attributes:
        id: the container's id.
        args: the program and the arguments.
        spec: the config.json in use.
        history: returns the last changes.
        status: returns the init's exit status, or None.
    """

    id: str
    args: tuple[str, ...]
    spec: bytes
    history: Callable[[], Sequence[Change]]
    status: Callable[[], ExitStatus | None]


class Witness(Protocol):
    """An observer: sees reports of all new containers, and is asked for names."""

    def name_suffix(self) -> str:
        """Return a suffix that makes the next name unique."""
        ...

    def place(self) -> str:
        """Return a suffix that makes the next temporary directory's name unique."""
        ...

    def saw(self, report: ContainerReport) -> None:
        """Note a container that was made, or taken from a pool."""

    def heard(self, container: str, content: bytes) -> None:
        """Note output of a container."""

    def waiting(self) -> AbstractContextManager[None]:
        """Note that the block's time counts for the infrastructure, not for the program."""
        ...


witness: Final[ContextVar[Witness | None]] = ContextVar("witness", default=None)


def name_suffix() -> str:
    """Return eight characters that make a name unique: random ones if there is no witness."""
    looking = witness.get()
    return secrets.token_hex(4) if looking is None else looking.name_suffix()


def place() -> str | None:
    """Return a suffix that makes a temporary directory unique; None without a witness."""
    looking = witness.get()
    return None if looking is None else looking.place()


def waiting() -> AbstractContextManager[None]:
    """Mark a block whose time counts for the infrastructure: creating, deleting."""
    looking = witness.get()
    return contextlib.nullcontext() if looking is None else looking.waiting()


def hear(container: str, content: bytes) -> None:
    """Report output of a container to the witness."""
    looking = witness.get()
    if looking is not None and content:
        looking.heard(container, content)
