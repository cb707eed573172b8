"""The public attributes of a container, and the methods that only concern the init."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import trio

from ..observers import Change
from ..process import Process, process_of
from ..stdio import Logs, Since, TerminalStream
from ..tasks import protected
from ..values import ExitStatus, State
from . import _exec
from ._core import Core
from ._stop import own_grace, own_signal


@protected
class Facts:
    """The attributes of a container, and the methods that are passed on to the init.

    Attributes:
        id: the container's id.
        init: the container's first `Process`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.id: str = core.record.id
        self.init: Process = process_of(core.init)

    def __repr__(self) -> str:
        return f"<supervisor.Container {self.id!r}: {self.state.value}>"

    @property
    def state(self) -> State:
        """The container's state: always up to date, without a turn of the event loop."""
        return self._core.see()

    @property
    def history(self) -> Sequence[Change]:
        """The last state changes that this supervisor saw, oldest first, at most 64.

        The history isn't kept on disk: for an adopted container, the first entry is ``"adopted"``.
        """
        return self._core.history

    @property
    def foreign(self) -> bool:
        """Whether another living supervisor owns the container.

        Then `start`, `delete` and `checkpoint` raise `ContainerLocked`; all other methods work.
        """
        return self._core.lock is None

    @property
    def leashed(self) -> bool:
        """Whether the container dies with the supervisor."""
        return self._core.record.leash

    @property
    def status(self) -> ExitStatus | None:
        """The exit status of the init; None while the init lives."""
        return self.init.status

    @property
    def returncode(self) -> int | None:
        """As `Process.returncode`, of the init."""
        return self.init.returncode

    @property
    def oom_kills(self) -> int:
        """How many processes of the container the kernel's OOM killer has killed so far.

        This counts all processes, also children of the program, which show nowhere else. 0 if the
        container has no cgroup of its own. The count stays known when the container has ended.
        """
        return self._core.init.group.oom_kills()

    @property
    def pid(self) -> int | None:
        """The pid of the init on the host."""
        return self.init.pid

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that were given at the create."""
        return MappingProxyType(dict(self._core.record.labels))

    @property
    def stop_signal(self) -> int:
        """The number of the signal that `stop` sends by default."""
        return own_signal(self._core)

    @property
    def stop_grace(self) -> float:
        """How many seconds `stop` waits by default before the kill."""
        return own_grace(self._core)

    @property
    def processes(self) -> Mapping[str, Process]:
        """The processes by id: ``"init"``, and the execs whose exit status no caller has read yet.

        An exec that is still being launched is here too.
        See `Process.wait`. Reading this property also finds the execs of other supervisors.
        """
        _exec.look_for_execs(self._core)
        execs = {id: process_of(task) for id, task in self._core.execs.items()}
        return MappingProxyType({self.init.id: self.init, **execs})

    @property
    def stdin(self) -> trio.abc.SendStream | None:
        """The init's standard input, if that is a PIPE."""
        return self.init.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """The init's standard output, if that is a PIPE."""
        return self.init.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """The init's standard error, if that is a PIPE."""
        return self.init.stderr

    # ---- passed on to the init ----------------------------------------------------------

    async def wait(self) -> ExitStatus:
        """Wait until the init has ended; as `Process.wait`."""
        return await self.init.wait()

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal to the init; as `Process.send_signal`."""
        self.init.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM to the init."""
        self.init.terminate()

    def close_stdin(self) -> None:
        """End the init's standard input; as `Process.close_stdin`."""
        self.init.close_stdin()

    async def attach(self) -> TerminalStream:
        """Attach to the init's terminal; as `Process.attach`."""
        return await self.init.attach()

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the init's terminal; as `Process.resize`."""
        self.init.resize(columns, rows)

    def logs(
        self,
        *,
        follow: bool = False,
        since: Since = None,
        until: Since = None,
        tail: int | None = None,
        after: str | None = None,
    ) -> Logs:
        """Read the init's log; as `Process.logs`."""
        return self.init.logs(follow=follow, since=since, until=until, tail=tail, after=after)
