"""A fresh writable layer over a root filesystem, for each container of a bundle.

The choice is kept in config.json as annotations, so that it is there when a bundle is loaded. A
runtime that gets the bundle directly ignores the annotations, and shows a read-only root.

Source: the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ..userns import IdMap, UserNamespace
from ..values import BundleInvalid, InvalidValue

WRITABLE = "org.trio-supervisor.writable"
LAYER_BYTES = "org.trio-supervisor.layer-bytes"

OVERLAY = "overlay"
MAX_BYTES = 2**53 - 1


@attrs.frozen(kw_only=True)
class Layer:
    """A layer that the shim mounts for a container, and that ends with the last process.

    Attributes:
        lower: the root filesystem under the layer, never written to.
        target: the mount point, where the container sees both as one.
        size_bytes: how much may be written; None for half of the host's memory.
        namespace: the user namespace in which the runtime may mount; None if not needed.
    """

    lower: str
    target: str
    size_bytes: int | None
    namespace: UserNamespace | None = None

    @property
    def options(self) -> list[str]:
        """The shim's options for the layer."""
        words = ["--lower", self.lower, "--layer", f"{self.size_bytes or 0}:{self.target}"]
        if self.namespace is not None:
            uids, gids = self.namespace.lines
            words += ["--uids", uids, "--gids", gids]
        return words


def surrounding_namespace(spec: Mapping[str, Any], *, uid: int) -> UserNamespace | None:
    """Return the user namespace in which a runtime may mount a layer; None for root.

    This namespace has the ids of the container's own one, which is made inside. So the user who
    made it has all privileges in both, and can call the runtime from outside for anything else.

    Args:
        spec: a checked config.json.
        uid: the uid that calls the runtime.

    Raises:
        InvalidValue: the container has no user namespace of its own.
    """
    if uid == 0:
        return None
    linux = spec["linux"]
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if not uids or not gids:
        raise InvalidValue(
            f'writable="{OVERLAY}": you aren\'t root, and may mount only in a user namespace: '
            "the bundle needs one of its own, with linux.uidMappings and linux.gidMappings"
        )
    return UserNamespace(uids=uids, gids=gids)


def inside(namespace: UserNamespace) -> dict[str, Any]:
    """Return the ``linux`` entries for a user namespace with the same ids inside this one."""
    uids, gids = (
        tuple(IdMap(entry.container_id, entry.container_id, entry.size) for entry in maps)
        for maps in (namespace.uids, namespace.gids)
    )
    return UserNamespace(uids=uids, gids=gids).to_json()


def layer_annotations(size_bytes: int | None) -> dict[str, str]:
    """Return the annotations that ask for a layer."""
    size = {} if size_bytes is None else {LAYER_BYTES: str(size_bytes)}
    return {WRITABLE: OVERLAY, **size}


def wants_layer(spec: Mapping[str, Any]) -> bool:
    """Whether the annotations of a config.json ask for a layer."""
    return (spec.get("annotations") or {}).get(WRITABLE) == OVERLAY


def layer_size(spec: Mapping[str, Any]) -> int | None:
    """Return the layer's size in bytes from a checked config.json."""
    size = (spec.get("annotations") or {}).get(LAYER_BYTES)
    return None if size is None else int(size)


def check_layer(spec: Mapping[str, Any], path: str) -> None:
    """Check the annotations of a config.json.

    Raises:
        BundleInvalid: the annotations have no clear meaning; names ``path``.
    """
    annotations = spec.get("annotations") or {}
    wish, size = annotations.get(WRITABLE), annotations.get(LAYER_BYTES)
    if wish not in (None, OVERLAY):
        raise BundleInvalid(f"must be {OVERLAY!r}, not {wish!r}", path=path, where=_where(WRITABLE))
    if size is None:
        return
    if not (size.isascii() and size.isdigit() and 0 < int(size[:20]) <= MAX_BYTES):
        raise BundleInvalid(
            f"must be a number of bytes from 1 to {MAX_BYTES}, not {size!r}",
            path=path,
            where=_where(LAYER_BYTES),
        )
    if wish is None:
        raise BundleInvalid(
            f"has no meaning without {WRITABLE}", path=path, where=_where(LAYER_BYTES)
        )


def _where(key: str) -> str:
    return f"annotations[{key!r}]"
