"""Freeze a cgroup; or, without a cgroup, stop processes one by one.

Source: kernel Documentation, cgroup-v1/freezer-subsystem and cgroup-v2, "cgroup.freeze".
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

import trio

from ..children import PidFd
from ..values import DeadlineExpired, ProcessEnded
from ._processes import descendants, state_of

_POLL_SECONDS: Final = 0.001
_LOOKS: Final = 200


@contextlib.asynccontextmanager
async def frozen_cgroup(directory: str, *, seconds: float) -> AsyncIterator[None]:
    """Freeze a cgroup directory (version 1 or 2) during the block."""
    file, freeze, thaw = _switch(directory)
    try:
        with trio.move_on_after(seconds) as scope:
            while not await _freeze(directory, file, freeze):
                # Version 1 may hang half-way: thaw, and begin again.
                file.write_text(thaw, encoding="utf-8")
                await trio.sleep(_POLL_SECONDS)
        if scope.cancelled_caught:
            raise DeadlineExpired(f"{directory} isn't frozen", seconds=seconds)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError, OSError):
            file.write_text(thaw, encoding="utf-8")


async def _freeze(directory: str, file: Path, freeze: str) -> bool:
    """Ask the kernel to freeze the cgroup; return whether the cgroup is frozen a moment later."""
    file.write_text(freeze, encoding="utf-8")
    for _ in range(_LOOKS):
        if _is_frozen(directory):
            return True
        await trio.sleep(_POLL_SECONDS)
    return False


@contextlib.asynccontextmanager
async def stopped_processes(roots: Iterable[int], *, seconds: float) -> AsyncIterator[None]:
    """SIGSTOP processes and all their descendants during the block."""
    with contextlib.ExitStack() as held:
        processes: dict[int, PidFd] = {}
        held.callback(_continue, processes)
        with trio.move_on_after(seconds) as scope:
            while new := _not_stopped(roots):
                for pid in new:  # the next look finds processes that they forked meanwhile
                    _stop(pid, processes)
                await trio.sleep(_POLL_SECONDS)
        if scope.cancelled_caught:
            raise DeadlineExpired("the processes don't stop", seconds=seconds)
        yield


def freezer_of(directories: Iterable[str]) -> str | None:
    """Return the directory of a cgroup that can be frozen; None if there is none."""
    return next((path for path in directories if _switches(path)), None)


def _switches(directory: str) -> bool:
    names = ("freezer.state", "cgroup.freeze")
    return any(os.access(os.path.join(directory, name), os.W_OK) for name in names)


def _switch(directory: str) -> tuple[Path, str, str]:
    old = Path(directory, "freezer.state")
    return (
        (old, "FROZEN", "THAWED") if old.exists() else (Path(directory, "cgroup.freeze"), "1", "0")
    )


def _is_frozen(directory: str) -> bool:
    old = Path(directory, "freezer.state")
    if old.exists():
        return old.read_text(encoding="utf-8").strip() == "FROZEN"
    return "frozen 1" in Path(directory, "cgroup.events").read_text(encoding="utf-8").splitlines()


def _not_stopped(roots: Iterable[int]) -> list[int]:
    family = [pid for root in roots for pid in (root, *descendants(root))]
    return [pid for pid in family if state_of(pid) not in ("T", "Z", "X", "")]


def _stop(pid: int, processes: dict[int, PidFd]) -> None:
    if pid not in processes:
        process = PidFd.open(pid)
        if process is None:
            return
        processes[pid] = process
    with contextlib.suppress(ProcessEnded):
        processes[pid].send_signal(signal.SIGSTOP)


def _continue(processes: dict[int, PidFd]) -> None:
    for process in processes.values():
        with contextlib.suppress(ProcessEnded):
            process.send_signal(signal.SIGCONT)
        process.close()
