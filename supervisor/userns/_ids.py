"""Ids inside and outside a user namespace.

Source: OCI runtime spec, "User namespace mappings"; user_namespaces(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..values import MAX_ID, BundleInvalid, InvalidValue, check_int, raise_if_scarce

_MAX_DIGITS = 10

_PROCESS_NAMESPACE = re.compile(r"/proc/([0-9]+|self|thread-self)/ns/user")


def parse_id(text: str) -> int | None:
    """Return the id that ``text`` is, or None if ``text`` is no id."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    value = int(text)
    return value if value <= MAX_ID else None


@attrs.frozen
class IdMap:
    """A range of ids inside a user namespace, and the range outside.

    Attributes:
        container_id: the first id inside.
        host_id: the first id outside.
        size: how many ids follow one another, on both sides.
    """

    container_id: int
    host_id: int
    size: int

    def host(self, container_id: int) -> int | None:
        """Return the id outside for one inside, or None if the range doesn't hold that id."""
        offset = container_id - self.container_id
        return self.host_id + offset if 0 <= offset < self.size else None

    def to_json(self) -> dict[str, int]:
        """Return the entry for ``linux.uidMappings`` or ``linux.gidMappings``."""
        return {
            "containerID": self.container_id,
            "hostID": self.host_id,
            "size": self.size,
        }

    @property
    def line(self) -> str:
        """The line for ``/proc/PID/uid_map``."""
        return f"{self.container_id} {self.host_id} {self.size}"


IdMapLike = IdMap | tuple[int, int, int] | Mapping[str, int]
"""A range: an `IdMap`, three numbers, or an entry of config.json."""

_KEYS = ("containerID", "hostID", "size")
_MAX_MAPS = 340  # the kernel's


def _id_maps(kind: str, value: object) -> tuple[IdMap, ...]:
    """Return ranges in one form.

    Raises:
        InvalidValue: the ranges can't be a user namespace's; names the range and the reason.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidValue(f"{kind} must be a sequence of IdMap, not {type(value).__name__}")
    maps = tuple(_id_map(one, f"{kind}[{n}]") for n, one in enumerate(value))
    if len(maps) > _MAX_MAPS:
        raise InvalidValue(f"{kind}: {len(maps)} ranges are too many: the kernel takes {_MAX_MAPS}")
    for n, one in enumerate(maps):
        for m, other in enumerate(maps[:n]):
            _check_apart(f"{kind}[{m}] and {kind}[{n}]", other, one)
    if host_id(maps, 0) is None:
        raise InvalidValue(f"{kind}: no range has 0, the container's root")
    return maps


def _id_map(value: object, name: str) -> IdMap:
    if isinstance(value, IdMap):
        numbers: Sequence[object] = (value.container_id, value.host_id, value.size)
    elif isinstance(value, Mapping) and set(value) == set(_KEYS):
        numbers = [value[key] for key in _KEYS]
    elif isinstance(value, tuple | list) and len(value) == len(_KEYS):
        numbers = value
    else:
        raise InvalidValue(
            f"{name} must be an IdMap, or three numbers: the first id in the container, the "
            "first one on the host, and how many"
        )
    first, outside = (check_int(number, name, least=0, most=MAX_ID) for number in numbers[:2])
    room = MAX_ID + 1 - max(first, outside)
    return IdMap(first, outside, check_int(numbers[2], f"the size of {name}", least=1, most=room))


def _check_apart(names: str, one: IdMap, other: IdMap) -> None:
    for side, a, b in (
        ("in the container", one.container_id, other.container_id),
        ("on the host", one.host_id, other.host_id),
    ):
        if a < b + other.size and b < a + one.size:
            raise InvalidValue(f"{names} overlap {side}")


def _uids(value: object) -> tuple[IdMap, ...]:
    return _id_maps("uids", value)


def _gids(value: object) -> tuple[IdMap, ...]:
    return _id_maps("gids", value)


@attrs.frozen(kw_only=True)
class UserNamespace:
    """The ids of a container in a user namespace of its own.

    Attributes:
        uids: the container's uids, and their uids on the host: `IdMap` values, or three numbers
            each. One range must have 0, the container's root.
        gids: the same for gids.
    """

    uids: tuple[IdMap, ...] = attrs.field(converter=_uids)
    gids: tuple[IdMap, ...] = attrs.field(converter=_gids)

    @property
    def root(self) -> tuple[int, int]:
        """The container root's uid and gid on the host."""
        uid, gid = host_id(self.uids, 0), host_id(self.gids, 0)
        assert uid is not None and gid is not None  # checked at construction
        return uid, gid

    def to_json(self) -> dict[str, Any]:
        """Return the entries for ``linux`` in config.json."""
        return {
            "uidMappings": [entry.to_json() for entry in self.uids],
            "gidMappings": [entry.to_json() for entry in self.gids],
        }

    @property
    def lines(self) -> tuple[str, str]:
        """The content of ``/proc/PID/uid_map`` and ``gid_map``."""
        uids, gids = ("\n".join(entry.line for entry in maps) for maps in (self.uids, self.gids))
        return uids, gids


def host_id(maps: Iterable[IdMap], container_id: int) -> int | None:
    """Return the id outside for ``container_id``, or None if that id isn't mapped."""
    for entry in maps:
        found = entry.host(container_id)
        if found is not None:
            return found
    return None


def container_root_ids(spec: Mapping[str, Any], *, path: str = "config.json") -> tuple[int, int]:
    """Return the container root's uid and gid on the host.

    These ids own the container's stdio. Without a user namespace they are 0 and 0.

    Args:
        spec: a checked config.json.
        path: the file to name in errors.

    Raises:
        BundleInvalid: the user namespace doesn't map root, or is joined by a path that doesn't show
            where the mappings are.
    """
    linux = spec.get("linux") or {}
    namespaces = linux.get("namespaces") or ()
    user = next((entry for entry in namespaces if entry.get("type") == "user"), None)
    if user is None:
        return 0, 0
    joined = user.get("path") or None
    uid = _root_id(linux, "uid", joined=joined, path=path)
    gid = _root_id(linux, "gid", joined=joined, path=path)
    return uid, gid


def _root_id(linux: Mapping[str, Any], kind: str, *, joined: str | None, path: str) -> int:
    """Return the host's id of root; ``kind`` is uid or gid."""
    where = f"linux.{kind}Mappings"
    maps = [
        IdMap(entry["containerID"], entry["hostID"], entry["size"])
        for entry in linux.get(f"{kind}Mappings") or ()
    ]
    if not maps and joined is not None:
        maps = _maps_of_namespace(joined, kind, path=path)
    found = host_id(maps, 0)
    if found is None:
        raise BundleInvalid(
            f"the user namespace doesn't map {kind} 0, the container's root: add an entry "
            "with containerID 0",
            path=path,
            where=where,
        )
    return found


def _maps_of_namespace(joined: str, kind: str, *, path: str) -> list[IdMap]:
    """Read the mappings of an existing namespace, as seen from ours."""
    match = _PROCESS_NAMESPACE.fullmatch(joined)
    if match is None:
        raise BundleInvalid(
            f"the mappings of the user namespace at {joined} can't be told from its path: "
            f"repeat them in linux.{kind}Mappings, or use a path like /proc/PID/ns/user",
            path=path,
            where="linux.namespaces",
        )
    source = f"/proc/{match[1]}/{kind}_map"
    try:
        with open(source, encoding="utf-8") as file:
            return [IdMap(*map(int, line.split())) for line in file]
    except OSError as error:
        raise_if_scarce(error)
        raise BundleInvalid(
            f"the mappings of the user namespace at {joined} can't be read from {source}: "
            f"{error.strerror}",
            path=path,
            where="linux.namespaces",
        ) from error
