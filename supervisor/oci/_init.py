"""The tiny pid 1 that ``init=True`` puts into a container."""

from __future__ import annotations

import struct

from .._errors import ShimNotFound
from ..shim._binary import find_binary

INIT_DESTINATION = "/dev/init"
INIT_ARGS = (INIT_DESTINATION, "--")  # in front of the program's own
"""Where it stands in the container: in the tmpfs on /dev, so that no root filesystem is written."""

_INTERPRETER = 3


def init_path() -> str:
    """Return the absolute path of ``supervisor-init``.

    Raises:
        ShimNotFound: it isn't there, isn't executable, or isn't static: it would look for its
            libraries inside the container, where they needn't be.
    """
    return static_path("supervisor-init")


def static_path(name: str) -> str:
    """Return the absolute path of a program of ours that runs as a container's first one.

    Raises:
        ShimNotFound: as `init_path`.
    """
    path = find_binary(name)
    if not is_static(path):
        raise ShimNotFound(
            f"{path} is not a static program, so it can't run as a container's init: install "
            "musl-tools (or the static C library) and reinstall trio-supervisor",
            path=path,
        )
    return path


def is_static(path: str) -> bool:
    """Return whether the ELF program at ``path`` asks for no interpreter."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:4] != b"\x7fELF":
            return False
        wide = header[4] == 2
        order = "<" if header[5] == 1 else ">"
        offset, size, count = (
            struct.unpack_from(f"{order}32xQ14xHH", header)
            if wide
            else struct.unpack_from(f"{order}28xI10xHH", header)
        )
        file.seek(offset)
        table = file.read(size * count)
    if size < 4 or len(table) < size * count:
        return False
    kinds = (struct.unpack_from(f"{order}I", table, n * size)[0] for n in range(count))
    return _INTERPRETER not in kinds
