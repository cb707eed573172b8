"""Harm to a live container: freeze, kill the shim, fill the memory, leave output unread.

All harm comes from outside, as on a real machine. The program in the container needn't help.
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
"""The filler writes to a file in memory, which counts for the cgroup and not for the filler: the
kernel kills the process with the most memory of its own, and that is then a container's process.
When these are gone, the kernel kills the filler, unless SIGTERM ends the filler in time. On SIGTERM
the filler exits by itself, so its exit status shows whether the kernel killed it."""


# ---- freezing -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def frozen(container: Container, *, seconds: float = HARM_SECONDS) -> AsyncIterator[None]:
    """Freeze all processes of a container during the block: ``async with frozen(box):``.

    The container's cgroup (version 1 or 2) freezes the processes. Without a cgroup, the processes
    and their descendants get SIGSTOP, and SIGCONT at the end. Under version 1 even SIGKILL takes
    effect only when the block is left.

    Args:
        container: a created or running container.
        seconds: how long freezing may take.

    Raises:
        IllegalTransition: the container isn't there, or has ended.
        DeadlineExpired: the processes didn't freeze; they were thawed again.
    Cancellation: the processes are thawed.
    """
    check_kind(container, Container, "container")
    check_seconds(seconds, "seconds")
    live = [process for process in container.processes.values() if process.status is None]
    if container.init not in live:
        raise IllegalTransition(
            f"cannot freeze in state {container.state.value}",
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
    """SIGKILL the shim of a process, and return when the shim has ended.

    ``on_shim_lost`` decides what happens to the process. Nothing is restored.

    Args:
        process: the process; for a container, the container's init.
        seconds: how long the shim may take to end.

    Raises:
        ProcessEnded: the shim has ended already.
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
            while not shim.ended():  # the supervisor's task waits on another descriptor
                await trio.sleep(_POLL_SECONDS)
        if scope.cancelled_caught:
            raise DeadlineExpired(
                f"the shim of {process.id} didn't end", seconds=seconds, container=process.container
            )


# ---- memory ---------------------------------------------------------------------------------


async def fill_memory(container: Container, *, seconds: float = HARM_SECONDS) -> int:
    """Fill a container's memory up to the limit, until the kernel kills a process there.

    A program of ours joins the container's cgroup and takes memory until none is left. Meanwhile
    the container's processes are the kernel's first choice (``oom_score_adj``), so the kernel kills
    one of them. Then the program ends and its memory is free again. The other processes get their
    old ``oom_score_adj`` back.

    Args:
        container: a created or running container with ``memory_bytes``.
        seconds: how long the filling may take.

    Returns:
        How many of the container's processes the kernel has killed.

    Raises:
        InvalidValue: the container has no limit, or we may not change cgroups (that takes root).
        DeadlineExpired: the kernel killed nothing in time.
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
            f"{container.id} has no memory limit that can be filled: give memory_bytes to the "
            "bundle, and run the tests as root"
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
        raise DeadlineExpired(
            "the kernel killed no process for want of memory",
            seconds=seconds,
            container=container.id,
        )
    return kills


@contextlib.contextmanager
def _first_choice(pids: Iterable[int]) -> Iterator[None]:
    """Make the kernel choose these processes first (proc(5), oom_score_adj)."""
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
    """Run the filler during the block, and append the filler's exit status to ``ends``.

    We end the filler with SIGTERM. A SIGKILL of ours would look like the kernel's, which the kernel
    may have counted already and not delivered yet.
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


# ---- unread output --------------------------------------------------------------------------


@attrs.frozen
class Unread:
    """An output that is left unread for a while; see `unread`."""

    _fd: int
    _capacity_bytes: int

    @property
    def held_bytes(self) -> int:
        """The number of bytes that wait in the pipe."""
        told = bytearray(4)
        fcntl.ioctl(self._fd, termios.FIONREAD, told)
        return int.from_bytes(told, sys.byteorder)

    async def wait_full(self) -> None:
        """Return when the pipe is full and the program has to wait.

        Cancellation: nothing changes.
        """
        while self.held_bytes < self._capacity_bytes:
            await trio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def unread(process: Process | Container, stream: str = "stdout") -> AsyncIterator[Unread]:
    """Stop reading a process's output during the block, so that the program soon has to wait.

    Until the block is left, the pipe holds one page instead of 64 KiB. The caller must not read
    meanwhile: reading lets the program go on.

    Args:
        process: the process; for a container, the container's init.
        stream: ``"stdout"`` or ``"stderr"``; the stream must be a PIPE.

    Raises:
        InvalidValue: the stream isn't a PIPE.
    Cancellation: the pipe gets the old size back.
    """
    process = check_process(process, "process")
    check_one_of(stream, ("stdout", "stderr"), "stream")
    path = task_of(process).layout.stdout if stream == "stdout" else task_of(process).layout.stderr
    if path is None or getattr(process, stream) is None:
        raise InvalidValue(f"{process.container}/{process.id} has no {stream} that is a PIPE")
    with _opened(path) as fd:
        before = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        with contextlib.suppress(OSError):  # EBUSY: the pipe holds more than a page already
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
