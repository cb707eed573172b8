"""The checks for the fields of records, made when a record is made.

A field's key in JSON is the field's Python name in camelCase, unless the field names another key.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..values import InvalidValue, check_int, check_text, copy_object

KEY = "key"

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def key_of(field: attrs.Attribute[Any]) -> str:
    """Return the field's key in JSON."""
    key = field.metadata.get(KEY)
    if key is not None:
        return str(key)
    first, *rest = field.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def text(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for text without NULs and surrogates."""
    check_text(value, field.name)


def optional_text(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for such text, or None."""
    if value is not None:
        check_text(value, field.name)


def absolute(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for an absolute path: runtimes and shims change directory."""
    if not os.path.isabs(check_text(value, field.name)):
        raise InvalidValue(f"{field.name} must be an absolute path")


def optional_cgroup(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for an absolute, plain cgroup path below the root cgroup, or None.

    To kill a container is to kill every process in the container's cgroup. So a path to the root
    cgroup, or out of a cgroup by ``..``, must never get into a record.
    """
    if value is None:
        return
    path = check_text(value, field.name)
    if not path.startswith("/") or any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise InvalidValue(f"{field.name} must be an absolute path below / without '.' and '..'")


def flag(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for a bool."""
    if not isinstance(value, bool):
        raise InvalidValue(f"{field.name} must be true or false, not {type(value).__name__}")


def integer(*, least: int, most: int) -> Check:
    """Return a check for an integer in a range, bounds included."""

    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        check_int(value, field.name, least=least, most=most)

    return check


def optional(check: Check) -> Check:
    """Return a check that also lets None pass."""

    def either(instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None:
            check(instance, field, value)

    return either


def texts(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Check for a tuple of text."""
    if not isinstance(value, tuple):
        raise InvalidValue(f"{field.name} must be a tuple or list, not {type(value).__name__}")
    for index, item in enumerate(value):
        check_text(item, f"{field.name}[{index}]")


def environment(instance: object, field: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """Check for a tuple of ``NAME=value``."""
    texts(instance, field, value)
    for index, item in enumerate(value):
        if item.find("=") < 1:
            raise InvalidValue(f"{field.name}[{index}] must be NAME=value with a name")


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
