"""How a container is asked to end: the stop signal, and the grace period.

Both are annotations in config.json; images name the signal in the first one. Source: OCI
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
"""A signal: a number, or a name like ``"SIGTERM"``, ``"TERM"`` or ``"RTMIN+3"``."""


class StopOptions(TypedDict, total=False):
    """How a program is asked to end.

    Attributes:
        stop_signal: the signal that asks the program to end, by number or name; SIGTERM by default.
            Kept in config.json as in images: ``org.opencontainers.image.stopSignal``.
        stop_grace: how many seconds the program is given then, 10 by default.
    """

    stop_signal: SignalArgument | None
    stop_grace: float | None


@attrs.frozen
class StopWish:
    """How a container is asked to end.

    Attributes:
        signal: the signal that asks the container; None for the usual one.
        grace: how many seconds the container is given; None for the usual time.
    """

    signal: int | None = None
    grace: float | None = None

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations for a config.json."""
        told = {}
        if self.signal is not None:
            told[STOP_SIGNAL] = str(self.signal)
        if self.grace is not None:
            told[STOP_GRACE] = repr(self.grace)
        return told

    def else_of(self, other: StopWish) -> StopWish:
        """Return this wish, with the other one's values for what is None."""
        return StopWish(
            other.signal if self.signal is None else self.signal,
            other.grace if self.grace is None else self.grace,
        )


def check_stop(
    stop_signal: SignalArgument | None = None, stop_grace: float | None = None
) -> StopWish:
    """Return a caller's arguments in one form.

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
        InvalidValue: there is no such signal; names the argument by ``name``.
    """
    number = signal_number(told)
    if number is None:
        raise InvalidValue(
            f"{name} must be a signal's number or name, 'SIGTERM' say, not {told!r:.100}",
            container=container,
        )
    return number


def stop_of(spec: Mapping[str, Any]) -> StopWish:
    """Return the wish in a config.json's annotations; what makes no sense is left out.

    An image's annotations are advice: other tools run the image all the same.
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
    """Return the number of a signal, given by number or name; None if there is no such signal."""
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
    """Whether a value is a number of seconds, 0 or more; ``math.inf`` means without limit."""
    if not isinstance(told, int | float) or isinstance(told, bool):
        return False
    return told >= 0 and not math.isnan(told)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if is_grace(seconds) else None
