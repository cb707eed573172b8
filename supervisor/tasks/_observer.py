"""Who looks on while containers are made: a test's example, which names them and is told of them.

Nobody does, as a rule, and then nothing here costs more than a look at a context variable. What a
task starts has the witness that the task has, so a pool that serves several examples sets its own
tasks free of it.
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
        at_ns: when, CLOCK_REALTIME in nanoseconds.
        event: what happened to it, or was asked of it; ``"adopted"`` where it was found.
        state: the state that this led to.
    """

    at_ns: int
    event: str
    state: State

    @property
    def at(self) -> datetime:
        """When, in UTC."""
        return moment(self.at_ns)


@attrs.frozen(kw_only=True, eq=False)
class ContainerReport:
    """A container that a witness is told of, as it is now and as it will be.

    It may be read in another thread than the one that the container is supervised in.

    Attributes:
        id: its id.
        args: the program and its arguments.
        spec: the config.json that is run.
        history: tells its last changes.
        status: tells how its init ended, or None.
    """

    id: str
    args: tuple[str, ...]
    spec: bytes
    history: Callable[[], Sequence[Change]]
    status: Callable[[], ExitStatus | None]


class Witness(Protocol):
    """Whoever is told of the containers that are made, and asked for names."""

    def name_suffix(self) -> str:
        """Return what tells the next name of ours from the others."""
        ...

    def place(self) -> str:
        """Return what tells the next temporary directory of ours from the others."""
        ...

    def saw(self, report: ContainerReport) -> None:
        """Take note of a container that was made, or taken from a pool."""

    def heard(self, container: str, content: bytes) -> None:
        """Take note of what a container has printed."""

    def waiting(self) -> AbstractContextManager[None]:
        """Take note that the block's time is the infrastructure's, not the program's."""
        ...


witness: Final[ContextVar[Witness | None]] = ContextVar("witness", default=None)


def name_suffix() -> str:
    """Return eight characters that tell a name from the others: random ones, if nobody looks on."""
    looking = witness.get()
    return secrets.token_hex(4) if looking is None else looking.name_suffix()


def place() -> str | None:
    """Return what tells a temporary directory from the others; None if nobody looks on."""
    looking = witness.get()
    return None if looking is None else looking.place()


def waiting() -> AbstractContextManager[None]:
    """Mark a block whose time is the infrastructure's: creating, deleting."""
    looking = witness.get()
    return contextlib.nullcontext() if looking is None else looking.waiting()


def hear(container: str, content: bytes) -> None:
    """Tell of what a container has printed."""
    looking = witness.get()
    if looking is not None and content:
        looking.heard(container, content)
