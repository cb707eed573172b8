"""Find the processes that hold the output of a program that has ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ..cgroups import Steps
from ..process import Process, task_of
from ..stdio import OutputStream
from ._completed import Holder

_SEARCH_SECONDS: Final = 0.05
_FIRST_SECONDS: Final = 1.0  # until somebody was found
_MAX_HOLDERS: Final = 64

_Identity = tuple[int, int]


def holders(process: Process, late: Sequence[tuple[str, OutputStream]]) -> Steps[list[Holder]]:
    """Find who has fifos open for writing, among the processes of the container.

    It is a diagnosis, so it takes a moment at most, however many processes and descriptors there
    are, and a second until the first one: who isn't found by then is somebody.
    """
    fifos = {_identity(os.fstat(stream.fileno())): name for name, stream in late}
    found: list[Holder] = []
    begun = time.monotonic()
    with contextlib.closing(_search(process, fifos, found)) as search:
        for _ in search:
            patience = _SEARCH_SECONDS if found else _FIRST_SECONDS
            if time.monotonic() > begun + patience or len(found) >= _MAX_HOLDERS:
                found += [Holder(name, None, None) for name in fifos.values()]
                return found
            yield
    named = {holder.stream for holder in found}
    return found + [Holder(name, None, None) for name in fifos.values() if name not in named]


def _search(process: Process, fifos: Mapping[_Identity, str], found: list[Holder]) -> Steps[None]:
    """Look at every process of the container, a few descriptors at each step."""
    for pid in (yield from task_of(process).group.pid_steps()):
        missing = dict(fifos)
        for identity in _open_files(pid):
            name = missing.pop(identity, None) if identity is not None else None
            if name is not None:
                found.append(Holder(name, pid, _program(pid)))
            if not missing:
                break
            yield


def _open_files(pid: int) -> Iterator[_Identity | None]:
    """Go through what a process has open; None for what can't be seen."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            identity = None
            with contextlib.suppress(OSError):
                identity = _identity(entry.stat())
            yield identity


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _program(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return None
