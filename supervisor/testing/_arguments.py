"""Checks of the test tools' arguments: a wrong argument is refused, by name, before any change."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..container import Container
from ..process import Process
from ..values import InvalidValue, check_path, check_seconds


def check_one_of(value: object, choices: Collection[str], name: str) -> str:
    """Return ``value``, one of the words in ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidValue(f"{name} must be one of {', '.join(choices)}, not {value!r:.100}")
    return value


def check_paths(value: Iterable[Any], name: str) -> tuple[str, ...]:
    """Return several paths; a single path is refused, not split into letters."""
    return tuple(check_path(path, name) for path in check_several(value, name))


def check_several(value: Iterable[Any], name: str) -> tuple[Any, ...]:
    """Return the items of an iterable; text is refused, though text is iterable too."""
    if isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable):
        raise InvalidValue(f"{name} must be several things, not {type(value).__name__}")
    return tuple(value)


def check_patience(value: object, name: str) -> float:
    """Return ``value``, a number of seconds: 0 (no wait) or more."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    try:
        return check_seconds(value, name)
    except InvalidValue:
        raise InvalidValue(f"{name} must be 0 seconds or more, not {value!r:.100}") from None


def check_callable(value: Any, name: str) -> Callable[..., Any]:
    """Return ``value``, a function or another callable."""
    if not callable(value):
        raise InvalidValue(f"{name} must be a function, not {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def check_process(value: object, name: str) -> Process:
    """Return a process; for a container, the container's init."""
    if isinstance(value, Container):
        return value.init
    if not isinstance(value, Process):
        raise InvalidValue(f"{name} must be a Process or a Container, not {type(value).__name__}")
    return value
