"""Launch a shim, or find a running one; read the report, and wait until the shim is gone."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

import attrs
import trio

from ..children import PidFd, Wards, let_go
from ..state import ProcessLayout, read_shim
from ..system import held, lifted_pipe
from ..tasks import forked, nap, within
from ..values import (
    UNRUNNABLE,
    ShimNotFound,
    StateCorrupt,
    raise_if_scarce,
)
from ._fifos import send_line, signal_line
from ._report import Made, Refused, parse_report

_REPORT_BYTES = 8192
_POLL_SECONDS = 0.005
_ENDING_MS = 100


@attrs.frozen(kw_only=True)
class Leash:
    """What a shim or a keeper watches, to notice the end of the supervisor.

    Attributes:
        pipe_fd: the reading end of a pipe that only the supervisor may write to.
        pidfd: the supervisor's process, in case a forked child of the supervisor holds the pipe.
        tether: path of the program that makes runtime calls die with the supervisor.
    """

    pipe_fd: int
    pidfd: int
    tether: str

    @property
    def fds(self) -> tuple[int, int]:
        """The descriptors that the child needs."""
        return self.pipe_fd, self.pidfd

    def __str__(self) -> str:
        return f"{self.pipe_fd}:{self.pidfd}"


@attrs.frozen
class KeeperFds:
    """The descriptors that a keeper gets.

    Attributes:
        leash: what the keeper watches.
        directory: the open root that the keeper cleans up, or the directory to make the root in.
        ready: the pipe that tells the keeper's pid; open for as long as the keeper lives.
    """

    leash: Leash
    directory: int = attrs.field(kw_only=True)
    ready: int = attrs.field(kw_only=True)

    @property
    def all(self) -> tuple[int, ...]:
        """The descriptors that the child needs."""
        return *self.leash.fds, self.directory, self.ready

    def __str__(self) -> str:
        return f"{self.leash}:{self.directory}:{self.ready}"


class Shim:
    """A shim that we launched, or that another supervisor left running.

    The ``shim`` file is locked for as long as the shim lives. If the pid can't be verified, there
    is no pidfd: then we can wait for the shim, but never signal it.
    """

    def __init__(
        self, layout: ProcessLayout, process: PidFd | None, *, seen_only: bool = False
    ) -> None:
        self._layout = layout
        self._process = process
        self._seen_only = seen_only  # another owner reaps the shim
        self._wards: Wards | None = None

    @classmethod
    def adopt(cls, layout: ProcessLayout) -> Shim:
        """Find the shim of a process directory, running or gone.

        The recorded pid is trusted only if the start time is the recorded one, too, and this
        directory is the process's working directory.

        Raises:
            TooManyFiles: no descriptor was left.
        """
        told = None
        with contextlib.suppress(StateCorrupt):  # a garbage file counts as missing
            told = read_shim(layout.shim)
        process = None if told is None else PidFd.open(*told)
        if process is not None and not _works_in(process.pid, layout.path):
            # An earlier supervisor in this program may have launched this shim. A process that
            # ends loses the working directory shortly before it becomes a zombie.
            process.reap(patience_ms=_ENDING_MS if _is_ending(process.pid) else 0)
            process.close()
            process = None
        return cls(layout, process)

    @classmethod
    def see(cls, layout: ProcessLayout) -> Shim:
        """Find the shim of a process directory as `adopt` does, and reap nothing.

        Raises:
            TooManyFiles: no descriptor was left.
        """
        recorded = None
        with contextlib.suppress(StateCorrupt):
            recorded = read_shim(layout.shim)
        process = None if recorded is None else PidFd.open(*recorded)
        if process is not None and not _works_in(process.pid, layout.path):
            process.close()
            process = None
        return cls(layout, process, seen_only=True)

    @property
    def pid(self) -> int | None:
        """The shim's pid; None if the pid isn't known for certain."""
        return None if self._process is None else self._process.pid

    def join(self, wards: Wards) -> None:
        """Become one of the shims whose children, after a kill, are in these wards."""
        self._wards = wards
        wards.launched(self.pid)

    def alive(self) -> bool:
        """Whether the shim still runs."""
        if self._process is not None:
            return not self._process.ended()
        return held(self._layout.shim)

    async def give_up(self, seconds: float) -> None:
        """Make the shim abandon the create and exit.

        Two signals mean: kill the runtime. The shim then kills what the runtime has made so far,
        and exits. A shim that already has its process forwards both signals to that. So the
        control line asks the shim to kill the process; the shim reads the line only after its
        report. After ``seconds`` the shim is killed.
        """
        if forked():
            return
        with contextlib.suppress(OSError):
            send_line(self._layout.control, signal_line(signal.SIGKILL))
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
                self._process.send_signal(signal.SIGINT)
        with within(seconds):
            await self._wait_undone()
            return
        self.kill()
        await self._wait_undone()

    async def _wait_undone(self) -> None:
        """Return when the shim is gone, and with a killed shim the children that came to us."""
        if self._process is not None and self._wards is not None:
            await self._process.wait_ended()
            await self._wards.end_session(self._layout.path, self._process.pid)
        await self.wait_gone()

    def kill(self) -> None:
        """Send SIGKILL to the shim, if the pid is known for certain."""
        if self._process is not None:
            self._process.kill()

    async def wait_gone(self) -> None:
        """Return when the shim has ended; reap a shim that is our child."""
        if self._process is not None:
            await self._process.wait_ended()
            if self._wards is not None:
                self._wards.ended(self._layout.path, self._process.pid)
            self._process.reap()
            return
        while held(self._layout.shim):
            await nap(_POLL_SECONDS)

    def close(self) -> None:
        """Close the pidfd; a running shim runs on."""
        if self._process is not None:
            if not self._seen_only:
                if not self._process.ended():
                    let_go(self._process)
                self._process.reap()
            self._process.close()


def launch(
    binary: str,
    command: Sequence[str],
    *,
    layout: ProcessLayout,
    options: Sequence[str] = (),
    apart: Sequence[str] = (),
    runtime_stays: bool = False,
    leash: Leash | None = None,
    fds: Sequence[int] = (),
    program: int | None = None,
) -> tuple[Shim, int]:
    """Launch a shim that will run the runtime's ``command``.

    Args:
        binary: the shim's program.
        command: the runtime's whole command line.
        layout: the process directory, which has the fifos ``exit`` and ``control`` already.
        options: further options of the shim (standard streams).
        apart: the ``cgroup.procs`` files of the cgroups that the shim goes into.
        runtime_stays: whether the runtime doesn't go there: the container will have other cgroups
            anyway.
        leash: ends the process when the supervisor ends.
        fds: descriptors named in ``options``.
        program: a descriptor of the runtime's program, if the program isn't run by path.

    Returns:
        The shim, and the descriptor of the report, for `read_report`.

    Raises:
        ShimNotFound: the program is missing or can't be executed.
        TooManyFiles: no descriptor was left.
    """
    own_cgroup = _cgroup_options(apart, "--own-cgroup" if runtime_stays else "--cgroup")
    arguments = [binary, "--directory", layout.path, *options, *own_cgroup]
    if program is not None:
        arguments += ["--program", str(program)]
        fds = [*fds, program]
    if leash is not None:
        arguments += ["--leash", str(leash)]
        fds = [*fds, *leash.fds]
    try:
        report_fd, write_fd = lifted_pipe()
    except OSError as error:
        raise_if_scarce(error)
        raise
    try:
        process = _spawn([*arguments, "--", *command], output=write_fd, fds=fds)
    except BaseException:
        os.close(report_fd)
        raise
    finally:
        os.close(write_fd)
    return Shim(layout, process), report_fd


async def read_report(fd: int) -> Made | Refused | None:
    """Return a shim's report, and close ``fd``; None if the shim died without a report.

    Cancellation: ``fd`` is closed, and the shim goes on.
    """
    heard = b""
    os.set_blocking(fd, False)
    try:
        while b"\n" not in heard and len(heard) < _REPORT_BYTES:
            await trio.lowlevel.wait_readable(fd)
            chunk = os.read(fd, _REPORT_BYTES)
            if not chunk:
                break
            heard += chunk
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)
    return parse_report(heard)


def _cgroup_options(apart: Sequence[str], option: str = "--cgroup") -> list[str]:
    """Return the options that move a shim or a keeper into other cgroups."""
    return [word for way in apart for word in (option, way)]


def launch_keeper(
    binary: str, root: str, fds: KeeperFds, *, make_root: bool, apart: Sequence[str] = ()
) -> PidFd:
    """Launch the keeper, which cleans up below ``root`` when the supervisor ends.

    Args:
        make_root: whether the keeper makes ``root`` first, and removes ``root`` in the end.
        apart: the ``cgroup.procs`` files of the cgroups that the keeper goes into.

    Returns:
        The process that launches the keeper, and ends at once.
    """
    command = [
        binary,
        str(fds),
        root,
        *(["make-root"] if make_root else []),
        *_cgroup_options(apart),
    ]
    return _spawn(command, output=None, fds=fds.all)


def _spawn(command: Sequence[str], *, output: int | None, fds: Sequence[int]) -> PidFd:
    """Start a program of ours; the program closes all descriptors except the given ones."""
    try:
        return PidFd.spawn(command, output=output, inherit=fds)
    except OSError as error:
        if error.errno not in UNRUNNABLE:
            raise
        raise ShimNotFound(
            f"cannot run {command[0]} ({error.strerror}): reinstall trio-supervisor",
            path=command[0],
        ) from error


def _works_in(pid: int, directory: str) -> bool:
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), os.stat(directory))
    except OSError:
        return False


def _is_ending(pid: int) -> bool:
    """Whether the kernel has removed a process's working directory, as shortly before the end."""
    try:
        os.stat(f"/proc/{pid}/cwd")
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
