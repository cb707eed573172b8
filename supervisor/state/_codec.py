"""Write records as JSON text, and load them strictly; a bad file raises `StateCorrupt`."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from ..system import MAX_BYTES, read_own
from ..values import Cause, ExitStatus, InvalidValue, Source, StateCorrupt
from ._models import (
    FIELDS,
    VERSION,
    ContainerRecord,
    Intent,
    ProcessRecord,
    Result,
    ShimLost,
    check_status,
)

Record = ContainerRecord | ProcessRecord | Result
R = TypeVar("R", bound=Record)

_ENUMS: Mapping[str, type[enum.Enum]] = {
    "cause": Cause,
    "intent": Intent,
    "onShimLost": ShimLost,
    "source": Source,
}
"""The keys with an enum's values."""

_ENCODER = json.JSONEncoder(
    sort_keys=True, ensure_ascii=True, allow_nan=False, default=lambda member: member.value
)


def dump(record: Record) -> bytes:
    """Return ``record`` as JSON: ASCII, one line, keys sorted, so equal records give equal bytes.

    Raises:
        InvalidValue: the text is longer than `load` would read.
    """
    tree = dict(record.extra)
    for part in (record, record.status) if isinstance(record, Result) else (record,):
        for key, field in FIELDS[type(part)].items():
            tree[key] = getattr(part, field.name)
    text = _ENCODER.encode(tree)
    if len(text) >= MAX_BYTES:
        raise InvalidValue(f"the record takes more than {MAX_BYTES} bytes")
    return text.encode("ascii") + b"\n"


def load(cls: type[R], path: str) -> R:
    """Read the record of type ``cls`` in the file at ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        StateCorrupt: the content is not such a record, or has a newer version; or another user
            may have written the file.
        OSError: the file can't be read.
    """
    return loads(cls, read_own(path), path=path)


def loads(cls: type[R], data: bytes, *, path: str) -> R:
    """Return the record of type ``cls`` in ``data``.

    Args:
        cls: the record's type.
        data: any bytes.
        path: the path of the file, for the error.

    Raises:
        StateCorrupt: ``data`` is not such a record, or has a newer version. There is no other
            error.
    """
    try:
        tree = _parse(data)
        _check_version(cls, tree)
        return _made(cls, tree)
    except RecursionError:
        raise StateCorrupt(path, "nested too deep") from None
    except ValueError as error:
        raise StateCorrupt(path, _by_its_key(cls, str(error))) from error


def _by_its_key(cls: type[Any], reason: str) -> str:
    """Return ``reason`` with the field's key in the file instead of the field's name in Python.

    A reason never quotes a value: an environment may hold secrets.
    """
    fields = {**FIELDS[cls], **(FIELDS[ExitStatus] if cls is Result else {})}
    keys = {field.name: key for key, field in fields.items()}
    name = re.match(r"(?:status\.)?(\w*)", reason)
    assert name is not None
    return keys[name[1]] + reason[name.end() :] if name[1] in keys else reason


def _made(cls: type[R], tree: dict[str, Any]) -> R:
    """Return the record of an object: the record checks the values, and keeps unknown keys."""
    values = _taken(FIELDS[cls], tree)
    if cls is Result:
        status = _taken(FIELDS[ExitStatus], tree)
        check_status(status)
        values["status"] = ExitStatus(**status)
    return cls(**values, extra=tree)


def _taken(fields: Mapping[str, attrs.Attribute[Any]], tree: dict[str, Any]) -> dict[str, Any]:
    """Take the keys of ``fields`` out of an object; return their values by the fields' names."""
    values = {}
    for key, field in fields.items():
        if key in tree:
            value = tree.pop(key)
            values[field.name] = _member(key, value) if key in _ENUMS else value
        elif field.default is attrs.NOTHING:
            raise InvalidValue(f"{key}: missing")
    return values


def _member(key: str, value: object) -> enum.Enum | None:
    """Return the enum's member with this value; leave None for the record to check."""
    if value is None:
        return None
    members = list(_ENUMS[key])
    for member in members:
        if member.value == value:
            return member
    raise InvalidValue(f"{key} must be one of {', '.join(repr(one.value) for one in members)}")


# ---- JSON ------------------------------------------------------------------------


def _parse(data: bytes) -> dict[str, Any]:
    try:
        # Decode here: `json` would also guess UTF-16 and UTF-32.
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        tree = json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"must be an object, not {type(tree).__name__}")
    return tree


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; refuse a repeated key: some readers take the first, some the last."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return tree


def _check_version(cls: type[Any], tree: dict[str, Any]) -> None:
    if cls is ProcessRecord:  # the OCI process object: no version of ours
        return
    version = tree.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(f"version {version} is newer than {VERSION}, the newest known here")
