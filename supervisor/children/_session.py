"""What a child of ours has started: its session, and whoever descends from it.

A runtime that is killed leaves its hooks running. Source: setsid(2), proc_pid_stat(5).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Final

from ..system import lifted, look_at
from ..values import InfrastructureError

_ROUNDS: Final = 10
_AT_ONCE: Final = 64
"""Descriptors."""


def kill_others(leader: int, fd: int) -> None:
    """SIGKILL what a child that leads a session has started, itself excepted.

    It walks /proc: that is for a thread.

    Args:
        leader: the child's pid. It must not have been reaped: as long as it isn't, and as long as
            there is anybody in it, the number of its session is nobody else's.
        fd: a pidfd of it.
    """
    for _ in range(_ROUNDS):  # those who are killed may just have started others
        if not _kill_found(leader, fd):
            break


def _kill_found(leader: int, fd: int) -> int:
    """Kill those that are found, and return how many."""
    family = {leader: fd}
    try:
        for pid in _numbers():
            if len(family) < _AT_ONCE and pid != leader and _belongs(pid, leader, family):
                with contextlib.suppress(OSError):  # it has gone, or there is no descriptor for it
                    family[pid] = lifted(os.pidfd_open(pid))
                    if not _belongs(pid, leader, family):  # another one has its number now
                        os.close(family.pop(pid))
        others = [one for pid, one in family.items() if pid != leader]
        for one in others:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(one, signal.SIGKILL)
        return len(others)
    finally:
        del family[leader]
        for one in family.values():
            os.close(one)


def _belongs(pid: int, leader: int, family: dict[int, int]) -> bool:
    """Whether a process is in the leader's session, or a child of one that we know to descend."""
    try:
        stat = look_at(pid)
    except (OSError, InfrastructureError):
        return False
    if stat is None or stat.zombie:
        return False
    parent = family.get(stat.parent_pid)
    # A parent that hasn't been reaped by now was the parent when we looked.
    return stat.session == leader or (parent is not None and not _reaped(parent))


def _reaped(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def _numbers() -> list[int]:
    """Return the processes there are, parents before their children as a rule."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
