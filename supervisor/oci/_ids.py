"""Ids inside and outside of a user namespace.

Source: OCI runtime spec, "User namespace mappings"; user_namespaces(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from .._errors import BundleInvalid

MAX_ID = 2**32 - 2
"""The largest id: the one above it means *no id* to the kernel."""

_MAX_DIGITS = 10

_PROCESS_NAMESPACE = re.compile(r"/proc/([0-9]+|self|thread-self)/ns/user")


def parse_id(text: str) -> int | None:
    """Return the id that ``text`` is, or None if it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    value = int(text)
    return value if value <= MAX_ID else None


@attrs.frozen
class IdMap:
    """A range of ids inside a user namespace, and where it lies outside.

    Attributes:
        container_id: the first id inside.
        host_id: the id outside that it stands for.
        size: how many ids follow one another, on both sides.
    """

    container_id: int
    host_id: int
    size: int

    def host(self, container_id: int) -> int | None:
        """Return the id outside for one inside, or None if this range doesn't hold it."""
        offset = container_id - self.container_id
        return self.host_id + offset if 0 <= offset < self.size else None

    def to_json(self) -> dict[str, int]:
        """Return the entry for ``linux.uidMappings`` or ``linux.gidMappings``."""
        return {
            "containerID": self.container_id,
            "hostID": self.host_id,
            "size": self.size,
        }


def host_id(maps: Iterable[IdMap], container_id: int) -> int | None:
    """Return the id outside for ``container_id``, or None where it isn't mapped."""
    for entry in maps:
        found = entry.host(container_id)
        if found is not None:
            return found
    return None


def container_root_ids(spec: Mapping[str, Any], *, path: str = "config.json") -> tuple[int, int]:
    """Return the uid and gid that the container's root has on the host.

    Stdio belongs to them. Without a user namespace they are 0 and 0.

    Args:
        spec: a checked config.json.
        path: the file to name in errors.

    Raises:
        BundleInvalid: a user namespace doesn't map root, or it is joined by a path that doesn't
            say where its mappings are.
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
    """Read the mappings of a namespace that exists already, as they look from ours."""
    match = _PROCESS_NAMESPACE.fullmatch(joined)
    if match is None:
        raise BundleInvalid(
            f"the mappings of the user namespace at {joined} can't be told from its path: "
            f"repeat them in linux.{kind}Mappings, or name it as /proc/PID/ns/user",
            path=path,
            where="linux.namespaces",
        )
    source = f"/proc/{match[1]}/{kind}_map"
    try:
        with open(source) as file:
            return [IdMap(*map(int, line.split())) for line in file]
    except OSError as error:
        raise BundleInvalid(
            f"the mappings of the user namespace at {joined} can't be read from {source}: "
            f"{error.strerror}",
            path=path,
            where="linux.namespaces",
        ) from error
