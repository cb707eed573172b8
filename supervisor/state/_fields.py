"""The checks for the fields of records, made when a record is made.

A field's key in JSON is the field's Python name in camelCase, unless the field names another key.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from ..values import InvalidValue, check_text, copy_object

KEY = "key"
KIND = "kind"


@attrs.frozen
class Kind:
    """What a field may hold.

    Attributes:
        type: the type of the value. Each text, and each item of a tuple, is free of NULs and
            surrogates.
        optional: whether the value may be None.
        least: the least integer.
        most: the greatest integer.
        rule: a further check, of the record, the field's name and the value.
    """

    type: type[Any]
    optional: bool = False
    least: int = 0
    most: int = 0
    rule: Callable[[Any, str, Any], None] | None = None

    def on(self, key: str | None = None) -> dict[str, Any]:
        """Return a field's metadata, with the key in JSON if the field's name doesn't say it."""
        return {KIND: self} if key is None else {KIND: self, KEY: key}


_SPOKEN: Mapping[type[Any], str] = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    tuple: "a tuple or list",
}


def key_of(field: attrs.Attribute[Any]) -> str:
    """Return the field's key in JSON."""
    key = field.metadata.get(KEY)
    if key is not None:
        return str(key)
    first, *rest = field.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def check_fields(record: object, fields: Iterable[attrs.Attribute[Any]]) -> None:
    """Check fields of a record, by the kind that each field names.

    Raises:
        InvalidValue: a value isn't valid; names the field.
    """
    texts: dict[str, Any] = {}
    rules = []
    for field in fields:
        kind: Kind | None = field.metadata.get(KIND)
        if kind is None:  # checked where the value is copied
            continue
        name, value = field.name, getattr(record, field.name)
        if kind.optional and value is None:
            continue
        if not isinstance(value, kind.type) or (kind.type is int and isinstance(value, bool)):
            what = _SPOKEN.get(kind.type, f"a {kind.type.__name__}")
            raise InvalidValue(f"{name} must be {what}, not {type(value).__name__}")
        if kind.type is str:
            texts[name] = value
        elif kind.type is tuple:
            for index, item in enumerate(value):
                texts[f"{name}[{index}]"] = item
        elif kind.type is int and not kind.least <= value <= kind.most:
            raise InvalidValue(f"{name} must be from {kind.least} to {kind.most}")
        if kind.rule is not None:
            rules.append((kind.rule, name, value))
    _check_texts(texts)
    for rule, name, value in rules:
        rule(record, name, value)


def _check_texts(texts: Mapping[str, Any]) -> None:
    """Check for text without NULs and surrogates: all at once, and one by one for the error."""
    if set(map(type, texts.values())) <= {str}:
        whole = "".join(texts.values())
        if whole.isascii() and "\0" not in whole:
            return
    for name, item in texts.items():
        check_text(item, name)


def absolute(_: object, name: str, value: str) -> None:
    """Check for an absolute path: runtimes and shims change directory."""
    if not os.path.isabs(value):
        raise InvalidValue(f"{name} must be an absolute path")


def plain_cgroup(_: object, name: str, value: str) -> None:
    """Check for an absolute, plain cgroup path below the root cgroup.

    To kill a container is to kill every process in the container's cgroup. So a path to the root
    cgroup, or out of a cgroup by ``..``, must never get into a record.
    """
    if not value.startswith("/") or not {"", ".", ".."}.isdisjoint(value[1:].split("/")):
        raise InvalidValue(f"{name} must be an absolute path below / without '.' and '..'")


def arguments(_: object, name: str, value: tuple[str, ...]) -> None:
    """Check for a program."""
    if not value:
        raise InvalidValue(f"{name} must hold at least the program")


def environment(_: object, name: str, value: tuple[str, ...]) -> None:
    """Check for a tuple of ``NAME=value``."""
    for index, item in enumerate(value):
        if item.find("=") < 1:
            raise InvalidValue(f"{name}[{index}] must be NAME=value with a name")


def as_tuple(value: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Make a tuple of a list; return any other value, for the check to refuse."""
    return tuple(value) if isinstance(value, list) else value


def copied_extra(value: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the keys that we don't know: no caller can change a record from outside."""
    return copy_object(value, "extra")


def copied_restart(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Copy a restart policy, or pass on None."""
    return None if value is None else copy_object(value, "restart")


def copied_labels(value: Mapping[str, str]) -> dict[str, str]:
    """Copy labels: text to text."""
    copied = copy_object(value, "labels", nul=False)
    for key, item in copied.items():
        check_text(item, f"labels.{key}")
    return copied
