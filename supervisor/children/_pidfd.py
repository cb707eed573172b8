"""A process, held by a descriptor: never signalled, never waited for, by its bare number.

Source: man 2 pidfd_open, pidfd_send_signal; kernel ``include/uapi/linux/pidfd.h``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Sequence
from typing import Any

import trio

from ..system import lifted
from ..system import start_time as read_start_time
from ..tasks import Opener, nap, refuse_forked, stop_waiting
from ..values import ProcessEnded, SupervisorClosed, scarcity

_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3
_INFO_FORMAT = struct.Struct("=Q52xi")  # the mask; at offset 60 the wait status
_REAP_POLL_SECONDS = 0.001

# Python ignores some, the program perhaps others: a child that ignores SIGCHLD can't wait.
_IGNORABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

# Where runtimes look for programs, directories, libraries and systemd.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "LD_LIBRARY_PATH",
)


class PidFd:
    """One process, ours or not, for as long as this is open.

    Attributes:
        pid: its number, for people and for /proc.
        fd: the descriptor; -1 once closed, and for a child that was reaped, by somebody else,
            before it had one: then all that is known of it is that it has ended.
    """

    def __init__(self, pid: int, fd: int) -> None:
        self.pid: int = pid
        self.fd: int = fd
        self._gone = fd < 0
        self._opener = Opener()

    @classmethod
    def open(cls, pid: int, start_time: int | None = None) -> PidFd | None:
        """Open the process, and compare its start time if one is given.

        The descriptor first, the comparison second: from then on the pid can't pass to a
        stranger unseen.

        Returns:
            None if there is no such process, or it is another one.

        Raises:
            TooManyFiles: no descriptor was left.
        """
        try:
            fd = lifted(os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        except OSError as error:
            raise scarcity(error) from error
        process = cls(pid, fd)
        try:
            same = start_time is None or read_start_time(pid) == start_time
        except BaseException:
            process.close()
            raise
        if not same:
            process.close()
            return None
        return process

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        output: int | None = None,
        errors: int | None = None,
        inherit: Sequence[int] = (),
        program: int | None = None,
    ) -> PidFd:
        """Start a child of ours, in a session of its own, with nothing blocked or ignored.

        Of our environment it gets what runtimes need, and nothing else: what a service manager
        or a shell has put into ours (``NOTIFY_SOCKET``, ``LISTEN_FDS``) isn't meant for it.

        Not through `subprocess`, whose objects insist on being waited for: a shim is meant to
        outlive us. It takes a third of a millisecond, less than the way to a thread and back.
        Descriptors of ours that aren't close-on-exec are for the child to close.

        Args:
            command: an absolute path and its arguments.
            output: its standard output, or None for nowhere.
            errors: its standard error, or None for nowhere.
            inherit: further descriptors that it gets.
            program: a descriptor of the program, where it isn't run from its path.

        Raises:
            TooManyProcesses: a limit on processes, or on memory, keeps it from being made.
            OSError: it can't be started.
            SupervisorClosed: this is a forked child, with a Trio run of its parent's.
        """
        refuse_forked()
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0 if output is None else output, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, 0 if errors is None else errors, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherit]  # clears close-on-exec
        paths = [command[0]]
        if program is not None:
            paths.insert(0, f"/proc/self/fd/{program}")
        spare = lifted(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))  # for the pidfd
        try:
            pid = _spawn_first(paths, command, actions)
        except OSError as error:
            raise scarcity(error, spawning=True) from error
        finally:
            os.close(spare)
        return cls(pid, _child(pid))

    def send_signal(self, number: int) -> None:
        """Send a signal.

        Raises:
            ProcessEnded: it has ended (and may be a zombie no more).
            SupervisorClosed: this is a forked child of whoever opened it.
        """
        self._opener.require()
        try:
            if self._gone:
                raise ProcessLookupError
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError as error:
            raise ProcessEnded(f"process {self.pid} has ended") from error

    def kill(self) -> None:
        """SIGKILL it; nothing happens if it has ended, or in a forked child."""
        with contextlib.suppress(ProcessEnded, SupervisorClosed):
            self.send_signal(signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it has ended; its parent may not have reaped it yet."""
        return bool(self._poll())

    def reaped(self) -> bool:
        """Whether it has ended and its parent has reaped it."""
        return bool(self._poll() & select.POLLHUP)

    async def wait_ended(self) -> None:
        """Return when it has ended. One task at a time may wait on a descriptor."""
        if self._gone:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(self.fd)

    async def wait_reaped(self) -> None:
        """Return when its parent has reaped it; nothing announces that, so it looks.

        If it was left to us, because we are a subreaper or pid 1, it is for us to reap.
        """
        await self.wait_ended()
        self.reap()
        while not self.reaped():
            await nap(_REAP_POLL_SECONDS)
            self.reap()

    def reap(self, *, patience_ms: int = 0) -> int | None:
        """Reap it, if it is our child and has ended; nothing happens once this is closed.

        Args:
            patience_ms: how long one may take that is ending already; we are blocked meanwhile.

        Returns:
            Its exit code, or -N for signal N; None if it wasn't reaped now.
        """
        if self.fd < 0:
            return None
        if patience_ms:
            self._poll(patience_ms)
        with contextlib.suppress(ChildProcessError):
            told = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
            if told is not None:
                return told.si_status if told.si_code == os.CLD_EXITED else -told.si_status
        return None

    def reap_later(self) -> None:
        """Have it reaped when it ends, if it is our child, though nobody waits for it any longer.

        A thread does that: this may be closed, and Trio's run over by then.
        """
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            fd = lifted(os.dup(self.fd))
            name = f"supervisor: the end of process {self.pid}"
            threading.Thread(target=_reap_at_end, args=[fd], name=name, daemon=True).start()

    def wait_status(self) -> int | None:
        """Return the wait status of a process that has been reaped, ours or not.

        Returns:
            As `os.wait` gives it; None where the kernel doesn't tell (before Linux 6.15, or
            before it was reaped).
        """
        if self.fd < 0:
            return None
        buffer = bytearray(64)
        struct.pack_into("=Q", buffer, 0, _INFO_EXIT)
        try:
            fcntl.ioctl(self.fd, _GET_INFO, buffer)
        except OSError:
            return None
        mask, status = _INFO_FORMAT.unpack(buffer)
        return status if mask & _INFO_EXIT else None

    def close(self) -> None:
        """Close the descriptor; the second time nothing happens."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            stop_waiting(fd)
            os.close(fd)

    def _poll(self, milliseconds: int = 0) -> int:
        if self._gone:
            return select.POLLIN | select.POLLHUP
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return next((events for _, events in poll.poll(milliseconds)), 0)


def _reap_at_end(fd: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, fd, os.WEXITED)
    os.close(fd)


def _environment() -> dict[str, str]:
    return {name: value for name in _ENVIRONMENT if (value := os.environ.get(name)) is not None}


def _spawn_first(
    paths: Sequence[str], command: Sequence[str], actions: Sequence[tuple[Any, ...]]
) -> int:
    """Spawn the first of the programs that may be run; return its pid."""
    *preferred, last = paths
    for path in preferred:
        with contextlib.suppress(PermissionError):
            return _spawn(path, command, actions)
    return _spawn(last, command, actions)


def _spawn(path: str, command: Sequence[str], actions: Sequence[tuple[Any, ...]]) -> int:
    return os.posix_spawn(
        path,
        list(command),
        _environment(),
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=_IGNORABLE,
    )


def _child(pid: int) -> int:
    """Return a descriptor of the child that was just spawned.

    A program that ignores SIGCHLD, or reaps whatever ends, may have had it reaped by now, and its
    pid passed on. So what was opened must be our child, and lead a session. (What it has open would
    tell more, but until it has come through its exec, that takes longer than the spawning.)

    Returns:
        -1 if it has ended and was reaped.

    Raises:
        TooManyFiles: no descriptor was left; it was killed.
    """
    try:
        fd = lifted(os.pidfd_open(pid))
    except ProcessLookupError:
        return -1
    except OSError as error:  # another thread has taken the one that was left for it
        if _is_spawned(os.P_PID, pid, pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise scarcity(error) from error
    if _is_spawned(os.P_PIDFD, fd, pid):
        return fd
    os.close(fd)
    return -1


def _is_spawned(kind: int, number: int, pid: int) -> bool:
    """Whether it is our child, which nobody has reaped, and leads a session."""
    try:
        leads = os.getsid(pid) == pid
        os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, ProcessLookupError):
        return False
    return leads
