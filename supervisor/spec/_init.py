"""The tiny pid 1 that ``init=True`` puts into a container."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..native import find_binary
from ..values import ShimNotFound

INIT_DESTINATION = "/dev/init"
INIT_ARGS = (INIT_DESTINATION, "--")  # in front of the program's own
"""Where it stands in the container: in the tmpfs on /dev, so that no root filesystem is written."""

REPORT_FD = 3
"""Where a gate has its report, which it hands on to an init."""

_INTERPRETER = 3
_NO_PRESERVED_FDS = ("runsc",)


def init_path() -> str:
    """Return the absolute path of ``supervisor-init``.

    Raises:
        ShimNotFound: it isn't there, isn't executable, or isn't static: it would look for its
            libraries inside the container, where they needn't be.
    """
    return static_path("supervisor-init")


def is_ours(spec: Mapping[str, Any]) -> bool:
    """Whether the program of a spec runs behind the init of this very installation.

    One of another installation, or a caller's own, may not know what ours can be told.
    """
    if behind_init(spec["process"].get("args") or ()) is None:
        return False
    sources = [
        mount.get("source")
        for mount in spec.get("mounts") or ()
        if mount["destination"] == INIT_DESTINATION
    ]
    try:
        return sources[-1:] == [find_binary("supervisor-init")]
    except ShimNotFound:
        return False


def behind_init(args: Sequence[str]) -> Sequence[str] | None:
    """Return the program and its arguments behind our init; None if that isn't in front."""
    return args[len(INIT_ARGS) :] if tuple(args[: len(INIT_ARGS)]) == INIT_ARGS else None


def can_tell(spec: Mapping[str, Any], runtime: str, *, gated: bool) -> bool:
    """Whether its init can tell the shim how the program ended.

    That takes a descriptor which the runtime hands on to it. Without, the exit code says what it
    can. A gate needs one in any case.
    """
    return is_ours(spec) and (gated or os.path.basename(runtime) not in _NO_PRESERVED_FDS)


def status_fd(*, gated: bool) -> int:
    """Return the descriptor by which an init tells that: behind a gate's."""
    return REPORT_FD + gated


def telling(args: Sequence[str], *, gated: bool) -> list[str]:
    """Return the arguments of a program behind our init, with what that is told."""
    report = ["--report", str(REPORT_FD)] if gated else []
    return [INIT_DESTINATION, "--status", str(status_fd(gated=gated)), *report, *args[1:]]


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
