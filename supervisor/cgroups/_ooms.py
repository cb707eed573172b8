"""Which out-of-memory kills a process has outlived: they don't explain the process's own end.

The kernel counts kills per cgroup, and doesn't say which process was killed. So we look when the
count rises: a process that is alive when no process in the cgroup is dying any more wasn't the
victim. While the kernel kills nothing, nothing wakes us; and all containers share one or two
descriptors.

Source: kernel Documentation/admin-guide, cgroup-v1/memory.rst ("OOM Control", eventfd) and
cgroup-v2.rst (memory.events, file modified events); man 7 inotify.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache

import trio

from ..system import lifted
from ..tasks import forked, nap, protected, within
from ..values import SupervisorError
from ._hierarchies import Hierarchies
from ._mounts import Mount
from ._steps import Steps

Outlived = Callable[[int], None]

_MODIFY = 0x2
_EVENTS_BYTES = 64 * 1024
_UNLIMITED = 2**62
_SETTLE_SECONDS = 0.05
_SOON_SECONDS = (0.01, 0.1)
_LATE_SECONDS = 1
_LOOKS = 200
_KILLED = 1 << (signal.SIGKILL - 1)


@protected
class OomWatch:
    """Reports to processes how many out-of-memory kills in their cgroup they have outlived.

    If a cgroup can't be watched, for lack of a descriptor or of permission, nothing is reported.
    """

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies
        self._listeners: dict[str, list[Outlived]] = {}
        self._told: dict[str, int] = {}
        self._busy: set[str] = set()
        self._fds: dict[int, int] = {}  # by the hierarchy's version
        self._fresh: trio.Event = trio.Event()

    @contextlib.contextmanager
    def watching(self, cgroup: str | None, outlived: Outlived) -> Iterator[None]:
        """Call ``outlived`` with the number of kills of other processes so far, when that grows."""
        listeners = None if cgroup is None else self._listeners_of(cgroup)
        if cgroup is None or listeners is None:
            yield
            return
        listeners.append(outlived)
        try:
            yield
        finally:
            listeners.remove(outlived)
            if not listeners:
                del self._listeners[cgroup]
                self._told.pop(cgroup, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            await self._look_at_fresh(nursery)

    def close(self) -> None:
        """Close the descriptors, when nothing is watched any more."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    # ---- the kernel's events --------------------------------------------------------------

    def _listeners_of(self, cgroup: str) -> list[Outlived] | None:
        if cgroup in self._listeners:
            return self._listeners[cgroup]
        mount = self._limited(cgroup)
        if mount is None:
            return None
        with contextlib.suppress(OSError):
            self._register(mount, cgroup)
        self._fresh.set()  # look at earlier kills as well
        return self._listeners.setdefault(cgroup, [])

    def _limited(self, cgroup: str) -> Mount | None:
        """Return the mount in which a cgroup has a memory limit."""
        for mount in self._hierarchies.hierarchies:
            if mount.counts_memory and _limit(mount, cgroup) < _UNLIMITED:
                return mount
        return None

    def _register(self, mount: Mount, cgroup: str) -> None:
        if mount.version == 2:
            self._register_file(f"{mount.point}{cgroup}/memory.events")
        else:
            self._register_event(mount.point + cgroup)

    def _register_file(self, path: str) -> None:
        """Watch a file; the kernel drops the watch with the file."""
        fd = self._fd(2, lambda: _libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        _libc().inotify_add_watch(fd, os.fsencode(path), _MODIFY)

    def _register_event(self, directory: str) -> None:
        """Watch a cgroup; the kernel drops the watch with the cgroup, and sends one more event
        then.
        """
        event = self._fd(1, lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        counter = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            control = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(control, f"{event} {counter}".encode())
            finally:
                os.close(control)
        finally:
            os.close(counter)

    def _fd(self, version: int, make: Callable[[], int]) -> int:
        if version not in self._fds:
            fd = make()
            if fd < 0:
                raise OSError(ctypes.get_errno(), "inotify")
            self._fds[version] = lifted(fd)
        return self._fds[version]

    # ---- from events to reports -----------------------------------------------------------

    async def _look_at_fresh(self, nursery: trio.Nursery) -> None:
        listening: set[int] = set()
        while True:
            await self._fresh.wait()
            self._fresh = trio.Event()
            for version in self._fds.keys() - listening:
                listening.add(version)
                nursery.start_soon(self._listen, nursery, self._fds[version])
            await self._look(nursery)

    async def _listen(self, nursery: trio.Nursery, fd: int) -> None:
        """Wait for events and look soon after; on version 1 the count rises after the event.

        On version 1 the count rises when the kernel has chosen its victim. A further event doesn't
        wait for the late look, since the end of any cgroup is an event, too.
        """
        while True:
            await trio.lowlevel.wait_readable(fd)
            with contextlib.suppress(BlockingIOError):
                os.read(fd, _EVENTS_BYTES)
            for seconds in _SOON_SECONDS:
                await nap(seconds)
                await self._look(nursery)
            with within(_LATE_SECONDS):
                await trio.lowlevel.wait_readable(fd)
                continue
            await self._look(nursery)

    async def _look(self, nursery: trio.Nursery) -> None:
        """Start a task for each cgroup whose count has risen since the last look."""
        if forked():
            return
        for cgroup in await self._hierarchies.carry_out(self._changed_steps()):
            if cgroup not in self._busy:
                self._busy.add(cgroup)
                nursery.start_soon(self._explain, cgroup)

    def _changed_steps(self) -> Steps[list[str]]:
        changed = []
        for cgroup in tuple(self._listeners):
            if self._hierarchies.oom_kills(cgroup) > self._told.get(cgroup, 0):
                changed.append(cgroup)
            yield
        return changed

    async def _explain(self, cgroup: str) -> None:
        """Report to the processes that are alive when the killed ones are gone.

        The count rises before the victim gets the signal, so the first look comes a moment later.
        And an init notices its program's end a moment after the program has left the cgroup, so the
        report comes a moment later as well.
        """
        listeners = self._listeners.get(cgroup)
        try:
            kills = await self._outlived(cgroup)
        finally:
            self._busy.remove(cgroup)
        # A later container with the same id has the same cgroup, but other listeners.
        if self._listeners.get(cgroup) is not listeners:
            self._fresh.set()
        elif kills is not None and listeners is not None:
            self._told[cgroup] = kills
            for outlived in tuple(listeners):
                outlived(kills)

    async def _outlived(self, cgroup: str) -> int | None:
        """Return the count when no process is dying any more; None if that takes too long."""
        for _ in range(_LOOKS):
            kills = self._hierarchies.oom_kills(cgroup)
            await nap(_SETTLE_SECONDS)
            try:
                dying = await self._hierarchies.carry_out(self._dying_steps(cgroup))
            except (SupervisorError, OSError):
                return None
            if dying:
                continue
            await nap(_SETTLE_SECONDS)
            if kills == self._hierarchies.oom_kills(cgroup):
                return kills
        return None

    def _dying_steps(self, cgroup: str) -> Steps[bool]:
        """Return whether a process in the cgroup was killed, and isn't gone yet."""
        for pid in (yield from self._hierarchies.member_steps(cgroup)):
            if _is_killed(pid):
                return True
            yield
        return False


def _limit(mount: Mount, cgroup: str) -> int:
    name = "memory.max" if mount.version == 2 else "memory.limit_in_bytes"
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
        with open(f"{mount.point}{cgroup}/{name}", "rb") as file:
            return int(file.read(32))
    return _UNLIMITED


def _is_killed(pid: int) -> bool:
    """Whether SIGKILL is pending for a process, or the process is exiting."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False
    told = {words[0]: words[1] for words in lines if len(words) > 1}
    pending = int(told.get(b"SigPnd:", b"0"), 16) | int(told.get(b"ShdPnd:", b"0"), 16)
    return bool(pending & _KILLED) or b"VmSize:" not in told


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
