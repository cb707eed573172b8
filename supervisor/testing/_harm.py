"""What may happen to a live container: it freezes, its shim dies, its memory fills, nobody reads.

Each is done from outside, as the machine would do it. The program in the container needn't help.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

from ..cgroups import Hierarchies
from ..children import PidFd
from ..container import Container
from ..process import Process, task_of
from ..state import read_shim
from ..values import (
    DeadlineExpired,
    IllegalTransition,
    InvalidValue,
    ProcessEnded,
    check_kind,
    check_seconds,
)
from ._arguments import check_one_of, check_process
from ._freezer import freezer_of, frozen_cgroup, stopped_processes

HARM_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.002
_REAP_SECONDS: Final = 5.0
_UNLIMITED: Final = 1 << 60  # version 1 says LONG_MAX, rounded to pages
_FILLER: Final = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
for directory in sys.argv[1:]:
    with open(directory + "/cgroup.procs", "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
fd = os.memfd_create("filler")
while True:
    os.write(fd, b"x" * (1 << 16))
"""
"""Written to a file in memory, what it takes counts for the cgroup and not for the program: of two
programs the kernel kills the one with more memory of its own. With the container's processes gone
that is this one, if it isn't told to end in time; it ends by itself, so that its end says which."""


# ---- freezing -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def frozen(container: Container, *, seconds: float = HARM_SECONDS) -> AsyncIterator[None]:
    """Freeze all processes of a container during the block: ``async with frozen(box):``.

    They are frozen through the container's cgroup, of version 1 or 2. Where it has none, its
    processes and their descendants get SIGSTOP, and SIGCONT at the end. Under version 1 even
    SIGKILL works only when the block is left.

    Args:
        container: one that is created or runs.
        seconds: how long freezing may take.

    Raises:
        IllegalTransition: it isn't there, or has ended.
        DeadlineExpired: its processes don't freeze; they were thawed again.
    Cancellation: they are thawed.
    """
    check_kind(container, Container, "container")
    check_seconds(seconds, "seconds")
    live = [process for process in container.processes.values() if process.status is None]
    if container.init not in live:
        raise IllegalTransition(
            f"cannot freeze: it is {container.state.value}",
            state=container.state.value,
            event="freeze",
            container=container.id,
        )
    cgroup = container._core.record.cgroup
    directories = [] if cgroup is None else Hierarchies.discover().directories(cgroup)
    freezer = freezer_of(directories)
    if freezer is not None:
        async with frozen_cgroup(freezer, seconds=seconds):
            yield
    else:
        pids = [process.pid for process in live if process.pid is not None]
        async with stopped_processes(pids, seconds=seconds):
            yield


# ---- the shim -------------------------------------------------------------------------------


async def kill_shim(process: Process | Container, *, seconds: float = HARM_SECONDS) -> None:
    """SIGKILL the shim of a process, and return when it has ended.

    What becomes of the process is a matter of ``on_shim_lost``. Nothing is restored.

    Args:
        process: the process; a container stands for its init.
        seconds: how long the shim may take to end.

    Raises:
        ProcessEnded: it has no shim any more.
        DeadlineExpired: the shim doesn't end.
    Cancellation: the shim is killed.
    """
    process = check_process(process, "process")
    check_seconds(seconds, "seconds")
    told = read_shim(task_of(process).layout.shim)
    shim = None if told is None else PidFd.open(*told)
    if shim is None:
        raise ProcessEnded(f"the shim of {process.id} has ended", container=process.container)
    with contextlib.closing(shim):
        if shim.ended():
            raise ProcessEnded(f"the shim of {process.id} has ended", container=process.container)
        shim.kill()
        with trio.move_on_after(seconds) as scope:
            while not shim.ended():  # the supervisor's task waits on a descriptor of its own
                await trio.sleep(_POLL_SECONDS)
        if scope.cancelled_caught:
            raise DeadlineExpired(
                f"the shim of {process.id} didn't end", seconds=seconds, container=process.container
            )


# ---- memory ---------------------------------------------------------------------------------


async def fill_memory(container: Container, *, seconds: float = HARM_SECONDS) -> int:
    """Fill a container's memory up to its limit, until the kernel kills something in it.

    A program of ours joins the container's cgroup and takes memory until none is left. The
    container's processes are made the kernel's first choice meanwhile (``oom_score_adj``), so one
    of them is killed. Then the program goes, what it has taken is free again, and those that are
    left are chosen as before.

    Args:
        container: one that is created or runs, with a ``memory_bytes`` of its own.
        seconds: how long it may take.

    Returns:
        How many of its processes the kernel has killed.

    Raises:
        InvalidValue: it has no limit, or we may not change cgroups (that takes root).
        DeadlineExpired: nothing was killed in time.
    Cancellation: the program is ended.
    """
    check_kind(container, Container, "container")
    check_seconds(seconds, "seconds")
    cgroup = container._core.record.cgroup
    hierarchies = Hierarchies.discover()
    directories = [f"{mount}{cgroup}" for mount in hierarchies.memory_mounts]
    limited = [path for path in directories if _limit(path) is not None]
    if cgroup is None or not limited or not hierarchies.usable or os.geteuid() != 0:
        raise InvalidValue(
            f"{container.id} has no limit of memory that could be reached: give its bundle "
            "memory_bytes, and be root"
        )
    before = hierarchies.oom_kills(cgroup)
    ends: list[int | None] = []
    with trio.move_on_after(seconds) as scope:
        with _first_choice(hierarchies.members(cgroup)):
            async with _filling(limited, ends):
                while hierarchies.oom_kills(cgroup) == before:
                    await trio.sleep(_POLL_SECONDS)
    kills = hierarchies.oom_kills(cgroup) - before - ends.count(-signal.SIGKILL)
    if scope.cancelled_caught and not kills:
        raise DeadlineExpired("its memory isn't filled", seconds=seconds, container=container.id)
    return kills


@contextlib.contextmanager
def _first_choice(pids: Iterable[int]) -> Iterator[None]:
    """Have the kernel choose these processes first (proc(5), oom_score_adj)."""
    files = [Path(f"/proc/{pid}/oom_score_adj") for pid in pids]
    before: dict[Path, str] = {}
    try:
        for file in files:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                before[file] = file.read_text(encoding="utf-8")
                file.write_text("1000", encoding="utf-8")
        yield
    finally:
        for file, text in before.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                file.write_text(text, encoding="utf-8")


@contextlib.asynccontextmanager
async def _filling(directories: list[str], ends: list[int | None]) -> AsyncIterator[None]:
    """Have memory filled during the block; say how the program ended: by SIGKILL, if it was killed.

    A SIGKILL of ours would hide that: the kernel may have counted it and not killed it yet.
    """
    filler = PidFd.spawn([os.path.abspath(sys.executable), "-IS", "-c", _FILLER, *directories])
    try:
        yield
    finally:
        with contextlib.suppress(ProcessEnded):
            filler.send_signal(signal.SIGTERM)
        with trio.move_on_after(_REAP_SECONDS, shield=True):
            await filler.wait_ended()
        ends.append(filler.reap())
        filler.kill()
        with trio.move_on_after(_REAP_SECONDS, shield=True):
            await filler.wait_ended()
        filler.reap()
        filler.close()


def _limit(directory: str) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            limit = int(Path(directory, name).read_text(encoding="utf-8"))
            return limit if limit < _UNLIMITED else None
    return None


# ---- output that nobody reads ---------------------------------------------------------------


@attrs.frozen
class Unread:
    """An output that isn't read just now; see `unread`."""

    _fd: int
    _capacity_bytes: int

    @property
    def held_bytes(self) -> int:
        """How many bytes wait to be read."""
        told = bytearray(4)
        fcntl.ioctl(self._fd, termios.FIONREAD, told)
        return int.from_bytes(told, sys.byteorder)

    async def wait_full(self) -> None:
        """Return when no more fits in, and the program has to wait.

        Cancellation: nothing changes.
        """
        while self.held_bytes < self._capacity_bytes:
            await trio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def unread(process: Process | Container, stream: str = "stdout") -> AsyncIterator[Unread]:
    """Stop reading a process's output during the block, so that the program soon has to wait.

    A pipe holds 64 KiB; here it holds one page, until the block is left. It is for the caller not
    to read meanwhile: reading is what lets the program go on.

    Args:
        process: the process; a container stands for its init.
        stream: ``"stdout"`` or ``"stderr"``; it must be a PIPE.

    Raises:
        InvalidValue: it isn't a PIPE.
    Cancellation: the pipe holds as much as before.
    """
    process = check_process(process, "process")
    check_one_of(stream, ("stdout", "stderr"), "stream")
    path = task_of(process).layout.stdout if stream == "stdout" else task_of(process).layout.stderr
    if path is None or getattr(process, stream) is None:
        raise InvalidValue(f"{process.container}/{process.id} has no {stream} that is a PIPE")
    with _opened(path) as fd:
        before = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        with contextlib.suppress(OSError):  # EBUSY: it holds more already
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1)
        try:
            yield Unread(fd, fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
        finally:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, before)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
