"""What the arguments for tests must be: each is refused by its name, before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..container import Container
from ..process import Process
from ..values import InvalidValue, check_path, check_seconds


def check_one_of(value: object, choices: Collection[str], name: str) -> str:
    """Return ``value`` if it is one of some words."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidValue(f"{name} must be one of {', '.join(choices)}, not {value!r:.100}")
    return value


def check_paths(value: Iterable[Any], name: str) -> tuple[str, ...]:
    """Return several paths; one alone isn't taken for its letters."""
    return tuple(check_path(path, name) for path in check_several(value, name))


def check_several(value: Iterable[Any], name: str) -> tuple[Any, ...]:
    """Return what an iterable holds; text, which is one too, isn't meant by any."""
    if isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable):
        raise InvalidValue(f"{name} must be several things, not {type(value).__name__}")
    return tuple(value)


def check_patience(value: object, name: str) -> float:
    """Return ``value`` if it is a number of seconds: 0, which waits for nothing, or more."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    try:
        return check_seconds(value, name)
    except InvalidValue:
        raise InvalidValue(f"{name} must be 0 seconds or more, not {value!r:.100}") from None


def check_callable(value: Any, name: str) -> Callable[..., Any]:
    """Return ``value`` if it is a function, or can be called as one."""
    if not callable(value):
        raise InvalidValue(f"{name} must be a function, not {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def check_process(value: object, name: str) -> Process:
    """Return a process; a container stands for its init."""
    if isinstance(value, Container):
        return value.init
    if not isinstance(value, Process):
        raise InvalidValue(f"{name} must be a Process or a Container, not {type(value).__name__}")
    return value
