"""The witness: a test, or an example of a test, that observes the containers it makes.

As a rule there is no witness, and then this module costs one look at a context variable. A task
inherits the witness of the task that starts it, so a pool that serves several examples runs its own
tasks without a witness.
"""

from __future__ import annotations

import contextlib
import secrets
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Final, Protocol

from ._observation import Observation


class Witness(Protocol):
    """An observer of the containers that are made during an example, which also names them."""

    def name_suffix(self) -> str:
        """Return a suffix that makes the next name unique."""
        ...

    def place(self) -> str:
        """Return a suffix that makes the next temporary directory's name unique."""
        ...

    def observe(self, observation: Observation) -> None:
        """Note what happens to a container that was made, or taken from a pool."""

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
