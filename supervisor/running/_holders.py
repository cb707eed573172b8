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
_FIRST_SECONDS: Final = 1.0  # until the first holder was found
_MAX_HOLDERS: Final = 64

_Identity = tuple[int, int]


def holders(process: Process, late: Sequence[tuple[str, OutputStream]]) -> Steps[list[Holder]]:
    """Find the processes of the container that have fifos open for writing.

    This is only a diagnosis. So the search is short, however many processes and descriptors there
    are: at most a second until the first holder, otherwise 0.05 seconds. For the holders that
    weren't found there is an entry without a pid.
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
    """Look at every process of the container, one descriptor at each step."""
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
    """Go through a process's open files; None for a file that can't be seen."""
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
