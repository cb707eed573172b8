"""Checks of arguments: text and JSON that a runtime can take, numbers, paths, flags."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ._errors import InvalidValue

T = TypeVar("T")

MAX_DEPTH = 100
"""How deep arrays and objects may nest: far above any need, far below Python's own limit."""

MAX_ID = 2**32 - 2
"""The highest uid and gid; to the kernel the next number means *none*."""

MAX_INT_BITS = 2048
"""How long an integer may be: Python reads 640 digits even at the lowest digit limit."""


def check_text(value: object, name: str, *, nul: bool = False) -> str:
    """Return ``value``, text that JSON and (unless ``nul``) a C string can carry.

    Args:
        value: the text to check.
        name: the name of the argument, for the error.
        nul: whether the text may contain a NUL: JSON carries a NUL, a C string doesn't.

    Raises:
        InvalidValue: the value isn't a str, or contains a NUL or a surrogate. (Two surrogates side
            by side would even be read back as one other character.)
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{name} must be text, not {type(value).__name__}")
    if not nul and "\0" in value:
        raise InvalidValue(f"{name} holds a NUL, which a path or an argument can't carry")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"{name} holds a lone surrogate, which is not UTF-8") from None
    return str.__str__(value)  # a plain str: for a member of a text enum, `str` gives the name


def spoilt(path: str) -> str | None:
    """Return why runtimes can't spell a path alike in their files; None if they can.

    The answer ends a sentence that begins with the path. The supervisor knows its own containers by
    the path in the runtime's files.
    """
    control = next((one for one in path if one < " "), None)
    if control is not None:
        return f"contains {control!r}: each runtime spells control characters in another way"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "isn't UTF-8, and the files of runtimes have to be UTF-8"
    return None


def check_int(value: object, name: str, *, least: int, most: int) -> int:
    """Return ``value``, an integer from ``least`` to ``most``; a bool doesn't count."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(f"{name} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidValue(f"{name} must be from {least} to {most}")
    return int(value)


def check_path(value: object, name: str) -> str:
    """Return the path that ``value`` is (text) or has (PathLike); the path isn't empty.

    Raises:
        InvalidValue: the value is something else.
    """
    path = check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, name)
    if not path:
        raise InvalidValue(f"{name} must not be empty")
    return path


def check_flag(value: object, name: str) -> bool:
    """Return ``value``, True or False; a number doesn't count."""
    if not isinstance(value, bool):
        raise InvalidValue(f"{name} must be True or False, not {type(value).__name__}")
    return value


def check_seconds(value: object, name: str) -> float:
    """Return ``value``, a number of seconds above 0; infinity is allowed."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not (0 < value <= sys.float_info.max or value == math.inf):  # type: ignore[operator]
        raise InvalidValue(f"{name} must be above 0 seconds, not {value!r:.100}")
    return float(value)  # type: ignore[arg-type]


def check_kind(value: object, kind: type[T], name: str) -> T:
    """Return ``value``, an instance of ``kind``."""
    if not isinstance(value, kind):
        raise InvalidValue(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


_PLAIN_INT = 2**64


def copy_json(value: object, name: str, *, nul: bool = True, depth: int = 0) -> Any:
    """Return a deep copy of ``value``, made of dict, list, str, int, float, bool and None.

    Args:
        value: a JSON value; any mapping counts as an object, a tuple as an array.
        name: the name of the argument, for the error.
        nul: whether text may contain NULs.
        depth: how deep ``value`` is nested inside the argument.

    Raises:
        InvalidValue: JSON wouldn't give an equal value back. The error names the place.
    """
    if depth == 0:
        with contextlib.suppress(_NotPlain):
            return _copy_plain(value, nul=nul)
    if depth > MAX_DEPTH:
        raise InvalidValue(f"{name} is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, name, nul=nul)
    if isinstance(value, int | float):
        return _number(value, name)
    if isinstance(value, Mapping):
        return copy_object(value, name, nul=nul, depth=depth)
    if isinstance(value, list | tuple):
        return [
            copy_json(item, f"{name}[{index}]", nul=nul, depth=depth + 1)
            for index, item in enumerate(value)
        ]
    raise InvalidValue(f"{name} is no JSON value but {type(value).__name__}")


def copy_object(value: object, name: str, *, nul: bool = True, depth: int = 0) -> dict[str, Any]:
    """Return a deep copy of ``value``, which must be a mapping; see `copy_json`."""
    if type(value) is dict and depth == 0:
        with contextlib.suppress(_NotPlain):
            plain: dict[str, Any] = _copy_plain(value, nul=nul)
            return plain
    return _copy_object(value, name, nul=nul, depth=depth)


class _NotPlain(Exception):
    """A value that needs the slower, complete check."""


def _copy_plain(value: object, *, nul: bool) -> Any:
    """Return a copy of a plainly valid value: in a tenth of the time, without error messages."""
    texts: list[Any] = []
    whole: list[Any] = [value]
    unread: list[tuple[Any, int]] = [(whole, 0)]
    while unread:
        copied, depth = unread.pop()
        pairs: Iterable[tuple[Any, Any]] = enumerate(copied)
        if type(copied) is dict:
            texts += copied
            pairs = copied.items()
        for key, item in pairs:
            kind = type(item)
            if kind is str:
                texts.append(item)
            elif depth < MAX_DEPTH and (kind is dict or isinstance(item, list | tuple)):
                copied[key] = dict(item) if kind is dict else list(item)
                unread.append((copied[key], depth + 1))
            elif not (
                item is None or kind is bool or (kind is int and -_PLAIN_INT < item < _PLAIN_INT)
            ):
                raise _NotPlain
    if not set(map(type, texts)) <= {str}:
        raise _NotPlain
    joined = "".join(texts)
    if not joined.isascii() or (not nul and "\0" in joined):
        raise _NotPlain
    return whole[0]


def check_object(value: object, name: str) -> Mapping[Any, Any]:
    """Return ``value``, a mapping.

    Raises:
        InvalidValue: the value is something else.
    """
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{name} must be a mapping, not {type(value).__name__}")
    return value


def _copy_object(value: object, name: str, *, nul: bool, depth: int) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, item in check_object(value, name).items():
        text = check_text(key, f"a key of {name}", nul=nul)
        copied[text] = copy_json(item, f"{name}.{text}", nul=nul, depth=depth + 1)
    return copied


def _number(value: float, name: str) -> float:
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise InvalidValue(f"{name} is an integer of more than {MAX_INT_BITS} bits")
        return int(value)
    if not math.isfinite(value):
        raise InvalidValue(f"{name} is not a finite number")
    return float(value)
