"""Processes that killed shims leave to us, if we are a subreaper or pid 1: we must reap them.

The zombie of an exec keeps the container's pid namespace, so init can't end either. Only our own
processes are reaped, by their descriptors: children of other libraries are left alone.

Source: man 2 prctl, PR_SET_CHILD_SUBREAPER; man 5 proc, /proc/PID/task/TID/children.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ..system import is_subreaper, look_at
from ..tasks import forked, nap
from ..values import InfrastructureError
from ._pidfd import PidFd

_POLL_SECONDS = 0.002

# Shims that a supervisor of this program has released, by pid and start time. They stay our
# children for as long as this program lives, whichever supervisor finds that they have ended.
_LET_GO: set[tuple[int, int]] = set()


class Wards:
    """Processes that were left to us to reap, by the process directory that each belonged to."""

    def __init__(self) -> None:
        self._held: dict[str, list[PidFd]] = {}
        self._shims: set[int] = set()

    def launched(self, shim: int | None) -> None:
        """Note a shim of ours: a shim is no ward."""
        if shim is not None:
            self._shims.add(shim)

    def ended(self, directory: str, shim: int) -> None:
        """Note what a shim has left in its session; the shim has ended and isn't reaped yet.

        The shim led the session. Until the shim is reaped, no other session gets its number.
        """
        self._shims.discard(shim)
        self._note(directory, lambda pid: os.getsid(pid) == shim, besides=shim)

    async def end_session(self, directory: str, shim: int) -> None:
        """Kill and reap all that such a shim has left, also orphans that come to us meanwhile.

        Cancellation: as `end`.
        """
        self.ended(directory, shim)
        while directory in self._held:
            await self.end(directory)
            self.ended(directory, shim)

    def look(self, directory: str, members: Callable[[], set[int]]) -> None:
        """Note the members of a cgroup that is about to be killed, if one of them was left to us.

        The other members are left to us when their parents end. If a pid is listed again after its
        pidfd was opened, the pidfd is still that member's.
        """
        if forked() or not is_left_to_us():
            return
        children = _children() - self._shims
        if not children or not children & members():
            return
        opened = [self._open(pid) for pid in members() - self._known()]
        listed = members()
        for process in opened:
            if process is not None and process.pid in listed:
                self._held.setdefault(directory, []).append(process)
            elif process is not None:
                process.close()

    def _open(self, pid: int) -> PidFd | None:
        with contextlib.suppress(InfrastructureError):
            return PidFd.open(pid)
        return None

    def _known(self) -> set[int]:
        return {one.pid for held in self._held.values() for one in held}

    def add(self, directory: str, pid: int, since: int) -> None:
        """Note a process that was launched after ``since``, if it is a zombie child of ours."""
        self._note(directory, lambda child: child == pid and _is_zombie(child, since))

    def keep(self, directory: str, process: PidFd) -> None:
        """Take over a killed process if we have to reap it; else close the pidfd."""
        if is_left_to_us() and _is_child(process):
            self._held.setdefault(directory, []).append(process)
        else:
            process.close()

    def is_ending(self, pid: int, since: int) -> bool:
        """Whether a process is a child of ours, launched after ``since``, that is ending."""
        now = look_at(pid)
        if now is None or pid in self._shims or now.parent_pid != os.getpid():
            return False
        return now.start_time >= since and (now.zombie or now.exiting)

    def _note(self, directory: str, is_one: Callable[[int], bool], *, besides: int = 0) -> None:
        if forked() or not is_left_to_us():
            return
        for pid in _children() - self._known() - self._shims - {besides}:
            process = self._open(pid)
            if process is None:
                continue
            with contextlib.suppress(OSError):
                if _is_child(process) and is_one(pid):
                    self._held.setdefault(directory, []).append(process)
                    continue
            process.close()

    async def end(self, directory: str) -> None:
        """Kill and reap the wards of a directory and of those below.

        Cancellation: what hasn't ended yet is reaped later.
        """
        below = directory + "/"
        for path in [one for one in self._held if one == directory or one.startswith(below)]:
            for process in self._held[path]:
                process.kill()
            while not self._reap(path):
                await nap(_POLL_SECONDS)

    def _reap(self, path: str) -> bool:
        left = []
        for process in self._held[path]:
            process.reap()  # from when it is our child: the parent may be ending
            if process.reaped():
                process.close()
            else:
                left.append(process)
        self._held[path] = left
        if not left:
            del self._held[path]
        return not left

    def close(self) -> None:
        """Reap the wards that have ended, and close the others."""
        for path in tuple(self._held):
            self._reap(path)
        for process in [one for held in self._held.values() for one in held]:
            process.close()
        self._held.clear()


def is_left_to_us() -> bool:
    """Whether orphans among our descendants become our children."""
    return os.getpid() == 1 or is_subreaper()


def let_go(shim: PidFd) -> None:
    """Note a shim that goes on without its supervisor: the end may come unnoticed."""
    now = look_at(shim.pid)
    if now is not None and now.parent_pid == os.getpid() and not forked():
        _LET_GO.add((shim.pid, now.start_time))


def reap_let_go() -> None:
    """Reap the released shims that have ended."""
    if forked():
        return
    for pid, start_time in tuple(_LET_GO):
        with contextlib.suppress(InfrastructureError):
            process = PidFd.open(pid, start_time)
            if process is None or process.ended():
                _LET_GO.discard((pid, start_time))
            if process is not None:
                process.reap()
                process.close()


def _children() -> set[int]:
    """Return all children of this process; an empty set if the kernel doesn't list them."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/self/task/{thread}/children", "rb") as file,
            ):
                found.update(map(int, file.read().split()))
    return found


def _is_child(process: PidFd) -> bool:
    try:
        os.waitid(os.P_PIDFD, process.fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _is_zombie(pid: int, since: int) -> bool:
    now = look_at(pid)
    return now is not None and now.zombie and now.start_time >= since
