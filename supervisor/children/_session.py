"""The processes that a child of ours has started: session and descendants.

A killed runtime leaves its hooks running. Source: setsid(2), proc_pid_stat(5).
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
"""How many descriptors are open at once."""


def kill_others(leader: int, fd: int) -> None:
    """SIGKILL all processes that a session-leading child has started, but not the child.

    This walks /proc: call it in a thread.

    Args:
        leader: the child's pid. The child must not have been reaped: until then, and while the
            session has members, no other session gets this number.
        fd: a pidfd of the child.
    """
    for _ in range(_ROUNDS):  # killed processes may just have started others
        if not _kill_found(leader, fd):
            break


def _kill_found(leader: int, fd: int) -> int:
    """Kill the processes that are found; return how many."""
    family = {leader: fd}
    try:
        for pid in _numbers():
            if len(family) < _AT_ONCE and pid != leader and _belongs(pid, leader, family):
                with contextlib.suppress(OSError):  # gone, or no descriptor is left
                    family[pid] = lifted(os.pidfd_open(pid))
                    if not _belongs(pid, leader, family):  # the pid was reused
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
    """Whether a process is in the leader's session, or a child of a known descendant."""
    try:
        stat = look_at(pid)
    except (OSError, InfrastructureError):
        return False
    if stat is None or stat.zombie:
        return False
    parent = family.get(stat.parent_pid)
    # A parent that isn't reaped by now was the parent when we looked.
    return stat.session == leader or (parent is not None and not _reaped(parent))


def _reaped(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def _numbers() -> list[int]:
    """Return the pids of all processes, as a rule parents before children."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
