"""Records to JSON text and back: strict, deterministic, and only ever `StateCorrupt`."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ..system import MAX_BYTES, read_own
from ..values import ExitStatus, InvalidValue, StateCorrupt
from ._fields import key_of
from ._models import STATUS_KEYS, VERSION, ContainerRecord, ProcessRecord, Result, known_keys

Record = ContainerRecord | ProcessRecord | Result
R = TypeVar("R", bound=Record)

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False)


def dump(record: Record) -> bytes:
    """Return ``record`` as JSON: ASCII, one line, keys sorted, so equal records give equal bytes.

    Raises:
        InvalidValue: it is longer than `load` would read.
    """
    data = _CONVERTER.unstructure(record)
    text = _ENCODER.encode(data)
    if len(text) >= MAX_BYTES:
        raise InvalidValue(f"the record takes more than {MAX_BYTES} bytes")
    return text.encode("ascii") + b"\n"


def load(cls: type[R], path: str) -> R:
    """Read the record of type ``cls`` in the file at ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        StateCorrupt: its content is not such a record, or of a newer version; or somebody else
            may have written it.
        OSError: the file can't be read.
    """
    return loads(cls, read_own(path), path=path)


def loads(cls: type[R], data: bytes, *, path: str) -> R:
    """Return the record of type ``cls`` in ``data``.

    Args:
        cls: what it should be.
        data: any bytes whatever.
        path: where they come from, for the error.

    Raises:
        StateCorrupt: ``data`` is not such a record, or of a newer version. Nothing else.
    """
    try:
        tree = _parse(data)
        _check_version(cls, tree)
        record: R = _CONVERTER.structure(tree, cls)
    except cattrs.ClassValidationError as error:
        raise StateCorrupt(path, "; ".join(_reasons(error, ""))) from error
    except RecursionError:
        raise StateCorrupt(path, "nested too deep") from None
    except (ValueError, TypeError) as error:
        raise StateCorrupt(path, str(error)) from error
    return record


# ---- JSON ------------------------------------------------------------------------


def _parse(data: bytes) -> dict[str, Any]:
    try:
        # Decoded here, since `json` would guess UTF-16 and UTF-32 as well.
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        tree = json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise TypeError(f"must be an object, not {_kind(tree)}")
    return tree


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; refuse a repeated key, of which each reader takes another one."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _check_version(cls: type[Any], tree: dict[str, Any]) -> None:
    if cls is ProcessRecord:  # a runtime's file: it has no version of ours
        return
    version = tree.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(f"version {version} is newer than {VERSION}, the newest known here")


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "an integer",
    float: "a fraction",
    bool: "true or false",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _reasons(error: BaseException, where: str) -> Iterator[str]:
    """Say what is wrong and where, by the keys of the file; never quote a value (secrets)."""
    if not isinstance(error, cattrs.ClassValidationError):
        what = "missing" if isinstance(error, KeyError) else str(error)
        yield f"{where}: {what}" if where else what
        return
    noted, rest = error.group_exceptions()
    for inner, note in noted:
        yield from _reasons(inner, _KEYS[error.cl, note.name])
    for inner in rest:
        yield from _reasons(inner, where)


# ---- the converter ---------------------------------------------------------------


def _exactly(kind: type) -> Any:
    """Return a hook that takes a value of just this type: no coercion, no bool for an int."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"must be {_KINDS[kind]}, not {_kind(value)}")
        return value

    return structure


def _member(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    if type(value) is str:
        for member in kind:
            if member.value == value:
                return member
    raise ValueError("must be one of " + ", ".join(repr(member.value) for member in kind))


def _texts(value: Any, _: Any) -> tuple[Any, ...]:
    if type(value) is not list:
        raise TypeError(f"must be an array, not {_kind(value)}")
    return tuple(value)  # the record checks each item, by its place


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping


def _hooks(converter: cattrs.Converter, cls: type[Any]) -> tuple[Any, Any]:
    """Return how ``cls`` is made of an object with the keys of the file, and the reverse."""
    names = {field.name: override(rename=_KEYS[cls, field.name]) for field in attrs.fields(cls)}
    return (
        make_dict_structure_fn(cls, converter, **names),  # type: ignore[arg-type]
        make_dict_unstructure_fn(cls, converter, **names),  # type: ignore[arg-type]
    )


def _register(converter: cattrs.Converter, cls: type[Any]) -> None:
    """Teach ``converter`` a record: its keys, and that unknown ones go to ``extra`` and back."""
    structure, unstructure = _hooks(converter, cls)
    known = known_keys(cls)

    def load_record(tree: dict[str, Any], kind: Any) -> Any:
        fields = {key: tree[key] for key in known & tree.keys()}
        fields["extra"] = {key: tree[key] for key in tree.keys() - known}
        if cls is Result:  # its status stands flat among its keys
            status = {key: fields.pop(key) for key in _STATUS & tree.keys()}
            fields["status"] = status
        return structure(fields, kind)

    def dump_record(record: Any) -> dict[str, Any]:
        fields = unstructure(record)
        return {**fields.pop("extra"), **fields.pop("status", {}), **fields}

    converter.register_structure_hook(cls, load_record)
    converter.register_unstructure_hook(cls, dump_record)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook_func(lambda t: t == tuple[str, ...], _texts)
    converter.register_structure_hook_func(_is_mapping, _exactly(dict))
    # Made of JSON values already, when the record was made: no need to look at each of them again.
    converter.register_unstructure_hook_func(_is_mapping, lambda value: value)
    converter.register_structure_hook(enum.Enum, _member)
    structure, unstructure = _hooks(converter, ExitStatus)
    converter.register_structure_hook(ExitStatus, structure)
    converter.register_unstructure_hook(ExitStatus, unstructure)
    for cls in (ContainerRecord, ProcessRecord, Result):
        _register(converter, cls)
    return converter


_STATUS = frozenset(STATUS_KEYS.values())
_KEYS: dict[tuple[Any, str], str] = {
    (cls, field.name): key_of(field)
    for cls in (ContainerRecord, ProcessRecord, Result)
    for field in attrs.fields(cls)
} | {(ExitStatus, name): key for name, key in STATUS_KEYS.items()}
_CONVERTER = _converter()
