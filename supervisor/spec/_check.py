"""Checks of JSON values: small functions, and functions that combine checks.

A check takes a value and the value's JSON path. It raises `Fault` or returns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..values import MAX_DEPTH

Check = Callable[[Any, str], None]

_KINDS = {
    dict: "an object",
    list: "an array",
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number with a fraction or an exponent",
    type(None): "null",
}


class Fault(Exception):
    """Something is wrong with a value.

    Attributes:
        where: the value's JSON path, such as ``process.args[0]``; "" for the whole document.
        reason: what is wrong, and what the value should be.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason


def kind(value: object) -> str:
    """Return JSON's name for the value's type."""
    return _KINDS.get(type(value), type(value).__name__)


def boolean(value: Any, where: str) -> None:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise Fault(where, f"must be true or false, not {kind(value)}")


def integer(least: int, most: int) -> Check:
    """Make the check for an integer from ``least`` to ``most``; a bool is no integer."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Fault(where, f"must be an integer, not {kind(value)}")
        if not least <= value <= most:
            raise Fault(where, f"must be from {least} to {most}")

    return check


def text(value: Any, where: str) -> None:
    """Check for text that a C string can hold."""
    if not isinstance(value, str):
        raise Fault(where, f"must be text, not {kind(value)}")
    if "\0" in value:
        raise Fault(where, "holds a NUL, which ends text for the kernel: leave it out")


def word(value: Any, where: str) -> None:
    """Check for text that isn't empty."""
    text(value, where)
    if not value:
        raise Fault(where, "must not be empty")


def absolute(value: Any, where: str) -> None:
    """Check for an absolute path."""
    word(value, where)
    if not value.startswith("/"):
        raise Fault(where, f"must be an absolute path, but {value!r} doesn't begin with /")


def pattern(expression: str, what: str) -> Check:
    """Make the check for text that ``expression`` matches as a whole."""
    compiled = re.compile(expression, re.ASCII | re.DOTALL)

    def check(value: Any, where: str) -> None:
        text(value, where)
        if compiled.fullmatch(value) is None:
            raise Fault(where, f"must be {what}, not {value[:100]!r}")

    return check


def array(item: Check, *, least: int = 0, empty: str = "") -> Check:
    """Make the check for an array of at least ``least`` items; ``empty`` says what is missing."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise Fault(where, f"must be an array, not {kind(value)}")
        if len(value) < least:
            raise Fault(where, f"must not be empty: {empty}")
        for index, entry in enumerate(value):
            item(entry, f"{where}[{index}]")

    return check


def table(item: Check) -> Check:
    """Make the check for an object with any keys, whose values have one check."""

    def check(value: Any, where: str) -> None:
        for key, entry in _object(value, where).items():
            item(entry, f"{where}.{key}")

    return check


def record(fields: Mapping[str, Check], *, required: Sequence[str] = ()) -> Check:
    """Make the check for an object with known keys.

    Unknown keys are allowed, as the specification asks. So is null for a key that isn't required:
    programs written in Go write null for *nothing*, and runtimes read null so.
    """

    def check(value: Any, where: str) -> None:
        found = _object(value, where)
        prefix = f"{where}." if where else ""
        for key in required:
            if found.get(key) is None:
                raise Fault(f"{prefix}{key}", "is missing, and required")
        for key, item in fields.items():
            if found.get(key) is not None:
                item(found[key], f"{prefix}{key}")

    return check


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault(where, f"must be an object, not {kind(value)}")
    return value


def carriable(value: Any, where: str = "", *, depth: int = 0) -> None:
    """Refuse what can't be written to a file: text that isn't UTF-8, and too deep nesting.

    Args:
        value: a JSON document.
        where: the document's JSON path.
        depth: how deep in the whole document the value lies.
    """
    if depth > MAX_DEPTH:
        raise Fault("", f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _encodable(value, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            carriable(item, f"{where}[{index}]", depth=depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _encodable(key, f"a key of {where or 'the document'}")
            carriable(item, f"{where}.{key}" if where else key, depth=depth + 1)


def _encodable(value: str, where: str) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault(where, "holds a lone surrogate, which is not UTF-8: leave it out") from None
