"""The tiny pid 1 that ``init=True`` adds to a container."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..native import find_binary
from ..values import ShimNotFound

INIT_DESTINATION = "/dev/init"
INIT_ARGS = (INIT_DESTINATION, "--")  # before the program's own arguments
"""Where the init lies in the container: in the tmpfs on /dev, so no root filesystem is changed."""

REPORT_FD = 3
"""A gate's descriptor for its report, which the gate hands on to an init."""

_INTERPRETER = 3
_NO_PRESERVED_FDS = ("runsc",)


def init_path() -> str:
    """Return the absolute path of ``supervisor-init``.

    Raises:
        ShimNotFound: the program is missing, not executable, or not static: a dynamic program needs
            libraries inside the container, where they may be missing.
    """
    return static_path("supervisor-init")


def is_ours(spec: Mapping[str, Any]) -> bool:
    """Whether a spec's program runs behind the init of this very installation.

    An init of another installation, or a caller's own, may not know our init's options.
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
    """Return the program's arguments behind our init; None if ``args`` don't begin with it."""
    return args[len(INIT_ARGS) :] if tuple(args[: len(INIT_ARGS)]) == INIT_ARGS else None


def can_tell(spec: Mapping[str, Any], runtime: str, *, gated: bool) -> bool:
    """Whether a spec's init can report to the shim how the program ended.

    The report needs a descriptor that the runtime hands on to the init. Without one there is only
    the exit code. A gate needs a descriptor in any case.
    """
    return is_ours(spec) and (gated or os.path.basename(runtime) not in _NO_PRESERVED_FDS)


def status_fd(*, gated: bool) -> int:
    """Return the descriptor for an init's report: the next one after a gate's."""
    return REPORT_FD + gated


def telling(args: Sequence[str], *, gated: bool) -> list[str]:
    """Return the arguments of a program behind our init, with the init's options."""
    report = ["--report", str(REPORT_FD)] if gated else []
    return [INIT_DESTINATION, "--status", str(status_fd(gated=gated)), *report, *args[1:]]


def static_path(name: str) -> str:
    """Return the absolute path of a program of ours that runs first in a container.

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
    """Return whether the ELF program at ``path`` needs no interpreter."""
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
