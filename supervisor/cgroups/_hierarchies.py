"""The cgroup of one container in every hierarchy that is mounted: version 1, 2 or both.

A container's cgroup is named once, as its spec's ``linux.cgroupsPath``; runtimes make it below
the mount point of each hierarchy. Source: man 7 cgroups; kernel Documentation/admin-guide,
cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

import attrs
import trio

from .._errors import scarcity

_RETRY_SECONDS = 0.002


@attrs.frozen
class Hierarchies:
    """The mounted cgroup hierarchies.

    Attributes:
        mounts: their mount points, each once.
        memory_mounts: those that count memory.
        usable: whether we may make cgroups: root may, an ordinary user mostly may not.
    """

    mounts: tuple[str, ...]
    memory_mounts: tuple[str, ...]
    usable: bool

    @classmethod
    def discover(cls, mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
        """Read them from the mount table (man 5 proc_pid_mountinfo).

        Raises:
            TooManyFiles: no descriptor was left.
        """
        memory: dict[str, bool] = {}
        try:
            with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.readlines()
        except OSError as error:
            raise scarcity(error) from error
        for line in lines:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.strip().split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                counts = kind == "cgroup2" or "memory" in options.split(",")
                memory[_unescape(fields.split(" ")[4])] = counts
        usable = bool(memory) and all(os.access(mount, os.W_OK) for mount in memory)
        counting = tuple(mount for mount, counts in memory.items() if counts)
        return cls(tuple(memory), counting, usable)

    def directories(self, cgroup: str) -> list[str]:
        """Return the directories that ``cgroup`` could have, existing or not."""
        return [mount + cgroup for mount in self.mounts]

    def oom_kills(self, cgroup: str | None) -> int:
        """Return how many processes the kernel has killed for want of memory in ``cgroup``."""
        if cgroup is None:
            return 0
        counts = [0]
        for mount in self.memory_mounts:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    counts.append(_counter(f"{mount}{cgroup}/{name}", "oom_kill"))
        return max(counts)

    def members(self, cgroup: str) -> set[int]:
        """Return the pids in ``cgroup`` and below it, in all hierarchies."""
        pids: set[int] = set()
        for directory in self.directories(cgroup):
            for path, _, _ in os.walk(directory):
                pids |= _processes(path)
        return pids

    def holds(self, cgroup: str, pid: int) -> bool:
        """Whether the process is in ``cgroup`` or below it in some hierarchy."""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError as error:
            raise scarcity(error) from error
        return any(path == cgroup or path.startswith(cgroup + "/") for path in paths)

    def kill(self, cgroup: str) -> None:
        """SIGKILL every process in ``cgroup`` and below it, as far as one look finds them.

        On version 1 a pid is signalled through a pidfd that was opened before the list was
        read again: a pid that went to a stranger in between is not listed any more.
        """
        for directory in self.directories(cgroup):
            with contextlib.suppress(OSError):
                _write(os.path.join(directory, "cgroup.kill"), b"1")
        for pid in self.members(cgroup):
            with _pidfd(pid) as pidfd:
                if pidfd is not None and pid in self.members(cgroup):
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def remove(self, cgroup: str) -> None:
        """Kill whatever is left in ``cgroup`` and remove its directories.

        Cancellation: the caller's deadline ends it; `remains` says what is left then.
        """
        while self._remove_once(cgroup):
            self.kill(cgroup)
            await trio.sleep(_RETRY_SECONDS)

    def remains(self, cgroup: str) -> list[str]:
        """Return the directories of ``cgroup`` that exist."""
        return [path for path in self.directories(cgroup) if os.path.isdir(path)]

    def exists(self, cgroup: str) -> bool:
        """Whether ``cgroup`` has a directory in some hierarchy."""
        return any(os.path.isdir(path) for path in self.directories(cgroup))

    def _remove_once(self, cgroup: str) -> bool:
        """Remove what can be removed; say whether something is left."""
        busy = [directory for directory in self.directories(cgroup) if _busy(directory)]
        return bool(busy)


def _busy(directory: str) -> bool:
    """Remove a cgroup directory and those below it; say whether one is in use."""
    if _try_rmdir(directory):  # the runtime has mostly done that, and then there is no more to do
        return False
    left = [path for path, _, _ in os.walk(directory, topdown=False) if not _try_rmdir(path)]
    return bool(left)


def _try_rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _unescape(path: str) -> str:
    for code, char in (
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ):
        path = path.replace(code, char)
    return path


def _counter(path: str, key: str) -> int:
    with open(path) as file:
        for line in file:
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0


def _processes(directory: str) -> set[int]:
    try:
        with open(os.path.join(directory, "cgroup.procs")) as file:
            return {int(line) for line in file} - {0}  # 0: a process of another pid namespace
    except OSError:
        return set()


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
