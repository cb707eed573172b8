"""How a container wants to be asked to end: its stop signal, and how long it is given.

Both stand in config.json as annotations; images name the signal in the first one. Source: OCI
image-spec, annotations and config (StopSignal).
"""

from __future__ import annotations

import logging
import math
import re
import signal
from collections.abc import Mapping
from typing import Any, Final, TypedDict, TypeGuard

import attrs

from ..values import InvalidValue

logger: Final = logging.getLogger("supervisor")

STOP_SIGNAL: Final = "org.opencontainers.image.stopSignal"
STOP_GRACE: Final = "org.trio-supervisor.stop-grace"

_REALTIME: Final = re.compile(r"(RTMIN|RTMAX)(?:([+-])([0-9]{1,2}))?")

SignalArgument = signal.Signals | int | str
"""A signal: its number, or its name, as ``"SIGTERM"``, ``"TERM"`` or ``"RTMIN+3"``."""


class StopOptions(TypedDict, total=False):
    """How a program is asked to end.

    Attributes:
        stop_signal: what asks it to end, by number or name; SIGTERM by default. It stands in
            config.json as images have it: ``org.opencontainers.image.stopSignal``.
        stop_grace: how many seconds it is given then, 10 by default.
    """

    stop_signal: SignalArgument | None
    stop_grace: float | None


@attrs.frozen
class StopWish:
    """How a container wants to be asked to end.

    Attributes:
        signal: what asks it; None for what is usual.
        grace: how many seconds it is given; None for what is usual.
    """

    signal: int | None = None
    grace: float | None = None

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of a config.json that say so."""
        told = {}
        if self.signal is not None:
            told[STOP_SIGNAL] = str(self.signal)
        if self.grace is not None:
            told[STOP_GRACE] = repr(self.grace)
        return told

    def else_of(self, other: StopWish) -> StopWish:
        """Return the same, with what it doesn't say as the other one says it."""
        return StopWish(
            other.signal if self.signal is None else self.signal,
            other.grace if self.grace is None else self.grace,
        )


def check_stop(
    stop_signal: SignalArgument | None = None, stop_grace: float | None = None
) -> StopWish:
    """Return a caller's words in one form.

    Raises:
        InvalidValue: no such signal, or no number of seconds.
    """
    number = None if stop_signal is None else check_stop_signal(stop_signal, "stop_signal")
    if stop_grace is not None and not is_grace(stop_grace):
        raise InvalidValue(f"stop_grace must be 0 seconds or more, not {stop_grace!r}")
    return StopWish(number, None if stop_grace is None else float(stop_grace))


def check_stop_signal(told: SignalArgument, name: str, *, container: str | None = None) -> int:
    """Return the number of a signal.

    Raises:
        InvalidValue: it is none; the argument's ``name`` is named.
    """
    number = signal_number(told)
    if number is None:
        raise InvalidValue(
            f"{name} must be a signal's number or name, 'SIGTERM' say, not {told!r:.100}",
            container=container,
        )
    return number


def stop_of(spec: Mapping[str, Any]) -> StopWish:
    """Return what the annotations of a config.json say; what makes no sense there is left out.

    An image's word on this is advice: other tools run it all the same.
    """
    annotations = spec.get("annotations") or {}
    name, seconds = annotations.get(STOP_SIGNAL), annotations.get(STOP_GRACE)
    number = None if name is None else signal_number(name)
    grace = None if seconds is None else _seconds(seconds)
    for key, told, heard in ((STOP_SIGNAL, name, number), (STOP_GRACE, seconds, grace)):
        if told is not None and heard is None:
            logger.warning("the annotation %s says %r, which means nothing here", key, told)
    return StopWish(number, grace)


def signal_number(told: object) -> int | None:
    """Return the number of a signal that is given by number or by name; None if it is none."""
    if isinstance(told, bool):
        return None
    if isinstance(told, int):
        return int(told) if 1 <= told < signal.NSIG else None
    if not isinstance(told, str):
        return None
    if told.isascii() and told.isdigit():
        return signal_number(int(told)) if len(told) <= 3 else None
    name = told.upper().removeprefix("SIG")
    realtime = _REALTIME.fullmatch(name)
    if realtime is not None:
        base = int(signal.SIGRTMIN if realtime[1] == "RTMIN" else signal.SIGRTMAX)
        number = base + int(f"{realtime[2] or '+'}{realtime[3] or 0}")
        return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None
    member = signal.Signals.__members__.get(f"SIG{name}")
    return None if member is None else int(member)


def is_grace(told: object) -> TypeGuard[float]:
    """Whether it is a number of seconds, 0 or more; ``math.inf`` for as long as it takes."""
    if not isinstance(told, int | float) or isinstance(told, bool):
        return False
    return told >= 0 and not math.isnan(told)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if is_grace(seconds) else None
