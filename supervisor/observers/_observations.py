"""What observers are notified of: changes, ends, output, and containers made, deleted or broken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs

from ..values import CleanupIncomplete, ExitStatus, State, moment
from ._observation import Observation

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
class Made(Observation):
    """A container was made; or taken from a pool, with another program.

    Attributes:
        container: the container's id.
        args: the program and the arguments.
        history: the container's last changes.
        status: the init's exit status, if the program was so quick; else None.
        spec: reads the config.json in use; ``b""`` if the file is gone.
        log: reads the end of the init's log; ``b""`` if there is none.
    """

    container: str
    args: tuple[str, ...]
    history: tuple[Change, ...]
    status: ExitStatus | None = None
    spec: Callable[[], bytes]
    log: Callable[[], bytes]


@attrs.frozen
class Changed(Observation):
    """A container's state has changed."""

    container: str
    change: Change


@attrs.frozen
class Ended(Observation):
    """The exit status of a process is known.

    A status may come twice: another supervisor's shows later what was unknown before.
    """

    container: str
    process: str
    status: ExitStatus


@attrs.frozen
class Read(Observation):
    """Output of a container was read by a caller, which removes the output from the fifo."""

    container: str
    content: bytes


@attrs.frozen
class Gone(Observation):
    """A container was deleted; with an error, the delete has failed, and the container is broken.

    A create that failed, and that couldn't be undone, counts as a failed delete.
    """

    container: str
    error: CleanupIncomplete | None = None
