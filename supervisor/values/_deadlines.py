"""Every deadline's default, in one place."""

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
    """How long each operation may take, in seconds; ``math.inf`` for as long as it takes.

    Attributes:
        create: the runtime's create, exec or restore, until the shim's report; its checkpoint.
        start: the runtime's start.
        call: any other call of the runtime (state, delete).
        cleanup: everything a failed or cancelled operation does to undo itself, and each half of
            a delete: ending the processes, and removing what is left.
        kill: from SIGKILL until the end is recorded.
        shim: from the recorded end until the shim itself is gone, and from the order to a
            shim to give up until it is killed.
        drain: from the end of a process until its output is given up, if somebody else
            still holds it open.
        recovery: all of the adoption at open.
    """

    create: float = attrs.field(default=60.0, validator=_positive)
    start: float = attrs.field(default=30.0, validator=_positive)
    call: float = attrs.field(default=30.0, validator=_positive)
    cleanup: float = attrs.field(default=30.0, validator=_positive)
    kill: float = attrs.field(default=10.0, validator=_positive)
    shim: float = attrs.field(default=2.0, validator=_positive)
    drain: float = attrs.field(default=1.0, validator=_positive)
    recovery: float = attrs.field(default=120.0, validator=_positive)
