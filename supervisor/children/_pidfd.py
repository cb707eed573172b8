"""A process, held by a pidfd: signals and waits never use a bare pid.

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
from ..values import ProcessEnded, SupervisorClosed, raise_if_scarce

_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3
_INFO_FORMAT = struct.Struct("=Q52xi")  # the mask; at offset 60 the wait status
_REAP_POLL_SECONDS = 0.001

# Python ignores some signals, and the program may ignore others. A child that ignores SIGCHLD can't
# wait for its own children.
_IGNORABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

# By these, runtimes find programs, directories, libraries and systemd.
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
        pid: the pid, for people and for /proc.
        fd: the descriptor. -1 after the close, and for a child that other code reaped before the
            descriptor was open: then only the end of the process is known.
    """

    def __init__(self, pid: int, fd: int) -> None:
        self.pid: int = pid
        self.fd: int = fd
        self._gone = fd < 0
        self._opener = Opener()

    @classmethod
    def open(cls, pid: int, start_time: int | None = None) -> PidFd | None:
        """Open the process, and compare the start time if one is given.

        The descriptor comes first, the comparison second: once the descriptor is open, the pid
        can't pass to a stranger unnoticed.

        Returns:
            None if there is no such process, or the start time differs.

        Raises:
            TooManyFiles: no descriptor was left.
        """
        try:
            fd = lifted(os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        except OSError as error:
            raise_if_scarce(error)
            raise
        try:
            same = start_time is None or read_start_time(pid) == start_time
        except BaseException:
            os.close(fd)
            raise
        if not same:
            os.close(fd)
            return None
        return cls(pid, fd)

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
        """Start a child in a session of its own, with no signal blocked or ignored.

        From our environment the child gets only the variables that runtimes need. What a service
        manager or a shell has put into our environment (``NOTIFY_SOCKET``, ``LISTEN_FDS``) isn't
        meant for the child.

        This doesn't use `subprocess`, whose objects insist on a wait: a shim is meant to outlive
        us. A spawn takes a third of a millisecond, less than the way to a thread and back. The
        child has to close inherited descriptors that aren't close-on-exec.

        Args:
            command: the program's absolute path, and arguments.
            output: the standard output; None for /dev/null.
            errors: the standard error; None for /dev/null.
            inherit: further descriptors for the child.
            program: a descriptor of the program, to run instead of the path.

        Raises:
            TooManyProcesses: a limit on processes, or on memory, prevents the spawn.
            OSError: the program can't be started.
            SupervisorClosed: this is a forked child that goes on with its parent's Trio run.
        """
        refuse_forked()
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, 0 if output is None else output, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, 0 if errors is None else errors, 2)]
        for fd in inherit:
            actions.append((os.POSIX_SPAWN_DUP2, fd, fd))  # clears close-on-exec
        paths = [command[0]]
        if program is not None:
            paths.insert(0, f"/proc/self/fd/{program}")
        try:
            spare = lifted(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))  # for the pidfd
            try:
                pid = _spawn(paths, command, actions)
            finally:
                os.close(spare)
        except OSError as error:
            raise_if_scarce(error, spawning=True)
            raise
        return cls(pid, _child(pid))

    def send_signal(self, number: int) -> None:
        """Send a signal.

        Raises:
            ProcessEnded: the process has ended (and may have been reaped).
            SupervisorClosed: this is a forked child of the opening process.
        """
        self._opener.require()
        try:
            if self._gone:
                raise ProcessLookupError
            signal.pidfd_send_signal(self.fd, number)
        except ProcessLookupError as error:
            raise ProcessEnded(f"process {self.pid} has ended") from error

    def kill(self) -> None:
        """Send SIGKILL. After the process's end, and in a forked child, this does nothing."""
        with contextlib.suppress(ProcessEnded, SupervisorClosed):
            self.send_signal(signal.SIGKILL)

    def ended(self) -> bool:
        """Whether the process has ended; it may still be a zombie."""
        return bool(self._poll())

    def reaped(self) -> bool:
        """Whether the process has ended and was reaped."""
        return bool(self._poll() & select.POLLHUP)

    async def wait_ended(self) -> None:
        """Return when the process has ended. One task at a time may wait on a descriptor."""
        if self._gone:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(self.fd)

    async def wait_reaped(self) -> None:
        """Return when the process was reaped. Nothing announces a reap, so this polls.

        If the process was left to us, because we are a subreaper or pid 1, this reaps it.
        """
        await self.wait_ended()
        self.reap()
        while not self.reaped():
            await nap(_REAP_POLL_SECONDS)
            self.reap()

    def reap(self, *, patience_ms: int = 0) -> int | None:
        """Reap the process if it is our child and has ended. After `close` this does nothing.

        Args:
            patience_ms: how long to wait for a process that is already ending; this blocks the
                thread.

        Returns:
            The exit code, or -N for signal N; None if this call reaped nothing.
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
        """Reap the process when it ends, if it is our child, without a further call.

        A thread does that: by then this object may be closed, and Trio's run over.
        """
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            fd = lifted(os.dup(self.fd))
            name = f"supervisor: the end of process {self.pid}"
            threading.Thread(target=_reap_at_end, args=[fd], name=name, daemon=True).start()

    def wait_status(self) -> int | None:
        """Return the wait status of a process that has been reaped, ours or not.

        Returns:
            The status as from `os.wait`. None if the kernel doesn't report it (before Linux 6.15,
            or before the reap).
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
        """Close the descriptor. A second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            stop_waiting(fd)
            os.close(fd)

    def _poll(self, milliseconds: int = 0) -> int:
        if self._gone:
            return select.POLLIN | select.POLLHUP
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        found = poll.poll(milliseconds)
        return found[0][1] if found else 0


def _reap_at_end(fd: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, fd, os.WEXITED)
    os.close(fd)


def _spawn(paths: Sequence[str], command: Sequence[str], actions: Sequence[tuple[Any, ...]]) -> int:
    """Spawn the first path that may be run; return the child's pid."""
    ours = os.environ
    environment = {name: ours[name] for name in _ENVIRONMENT if name in ours}
    while True:
        path, *paths = paths
        try:
            return os.posix_spawn(
                path,
                list(command),
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=_IGNORABLE,
            )
        except PermissionError:
            if not paths:
                raise


def _child(pid: int) -> int:
    """Return a descriptor of the child that was just spawned.

    If the program around us ignores SIGCHLD, or reaps all children, the child may be reaped by now,
    and its pid reused. So the process that was opened must be our child, and lead a session. (Its
    open files would prove more, but only after its exec, and to wait for that takes longer than the
    spawn.)

    Returns:
        -1 if the child has ended and was reaped.

    Raises:
        TooManyFiles: no descriptor was left; the child was killed.
    """
    try:
        fd = lifted(os.pidfd_open(pid))
    except ProcessLookupError:
        return -1
    except OSError as error:  # another thread has taken the spare descriptor
        if _is_spawned(os.P_PID, pid, pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise_if_scarce(error)
        raise
    if _is_spawned(os.P_PIDFD, fd, pid):
        return fd
    os.close(fd)
    return -1


def _is_spawned(kind: int, number: int, pid: int) -> bool:
    """Whether the process is our unreaped child, and leads a session."""
    try:
        leads = os.getsid(pid) == pid
        os.waitid(kind, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (ChildProcessError, ProcessLookupError):
        return False
    return leads
