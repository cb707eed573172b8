"""All deadlines and their defaults."""

from __future__ import annotations

import math
import sys

import attrs

from ._errors import InvalidValue


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not (0 < value <= sys.float_info.max or value == math.inf):
        raise InvalidValue(f"deadline {attribute.name} must be above 0 seconds, not {value!r}")


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long each operation may take, in seconds; ``math.inf`` means no limit.

    Attributes:
        create: the runtime's create, exec or restore, until the shim's report; and the runtime's
            checkpoint.
        start: the runtime's start.
        call: any other call of the runtime (state, delete).
        cleanup: the clean-up of a failed or cancelled operation; also each half of a delete:
            ending the processes, and removing what is left.
        kill: from SIGKILL until the exit status is recorded.
        shim: from the recorded exit status until the shim has exited; also from the order to a
            shim to give up until the supervisor kills the shim.
        drain: from the end of a process until the supervisor gives up the process's output, if
            another process still holds the output open.
        recovery: the adoption of all containers at open.
    """

    create: float = attrs.field(default=60.0, validator=_positive)
    start: float = attrs.field(default=30.0, validator=_positive)
    call: float = attrs.field(default=30.0, validator=_positive)
    cleanup: float = attrs.field(default=30.0, validator=_positive)
    kill: float = attrs.field(default=10.0, validator=_positive)
    shim: float = attrs.field(default=2.0, validator=_positive)
    drain: float = attrs.field(default=1.0, validator=_positive)
    recovery: float = attrs.field(default=120.0, validator=_positive)
