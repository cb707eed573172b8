"""What a container shows of itself, and what it passes on to its init."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import trio

from ..process import Process, process_of
from ..stdio import Logs, Since, TerminalStream
from ..tasks import Change, protected
from ..values import ExitStatus, State
from . import _exec
from ._core import Core
from ._stop import own_grace, own_signal


@protected
class Facts:
    """What is known of a container, and what is done with its init alone.

    Attributes:
        id: its id.
        init: its first `Process`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.id: str = core.record.id
        self.init: Process = process_of(core.init)

    def __repr__(self) -> str:
        return f"<supervisor.Container {self.id!r}: {self.state.value}>"

    @property
    def state(self) -> State:
        """Where it stands in its lifecycle. True at once, without a turn of the loop."""
        return self._core.see()

    @property
    def history(self) -> Sequence[Change]:
        """How it came to that: its last changes of state that this supervisor saw, oldest first.

        It isn't kept on disk: an adopted container's begins with ``"adopted"``, whatever was
        before. At most the last 64 are kept.
        """
        return self._core.history

    @property
    def foreign(self) -> bool:
        """Whether another living supervisor supervises it.

        Then `start`, `delete` and `checkpoint` raise `ContainerLocked`, and all else works.
        """
        return self._core.lock is None

    @property
    def leashed(self) -> bool:
        """Whether it dies with its supervisor."""
        return self._core.record.leash

    @property
    def status(self) -> ExitStatus | None:
        """How its init ended; None while it lives."""
        return self.init.status

    @property
    def returncode(self) -> int | None:
        """As `Process.returncode`, of its init."""
        return self.init.returncode

    @property
    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory so far.

        Whichever these were: the child of a shell is none of ours, and shows nowhere else. 0 where
        it has no cgroup of its own. What was counted stays known when it has ended.
        """
        return self._core.init.group.oom_kills()

    @property
    def pid(self) -> int | None:
        """The pid of its init on the host."""
        return self.init.pid

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that it was created with."""
        return MappingProxyType(dict(self._core.record.labels))

    @property
    def stop_signal(self) -> int:
        """What asks it to end, if nothing else is said: a signal's number."""
        return own_signal(self._core)

    @property
    def stop_grace(self) -> float:
        """How many seconds it is given then, if nothing else is said."""
        return own_grace(self._core)

    @property
    def processes(self) -> Mapping[str, Process]:
        """Its processes by id: ``"init"``, and the execs that aren't done with.

        An exec is, when somebody has waited for its end: see `Process.wait`. Those that other
        supervisors run in it are found by looking here.
        """
        _exec.look_for_execs(self._core)
        execs = {id: process_of(task) for id, task in self._core.execs.items()}
        return MappingProxyType({self.init.id: self.init, **execs})

    @property
    def stdin(self) -> trio.abc.SendStream | None:
        """Its init's standard input, if that is a PIPE."""
        return self.init.stdin

    @property
    def stdout(self) -> trio.abc.ReceiveStream | None:
        """Its init's standard output, if that is a PIPE."""
        return self.init.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream | None:
        """Its init's standard error, if that is a PIPE."""
        return self.init.stderr

    # ---- passed on to its init ----------------------------------------------------------

    async def wait(self) -> ExitStatus:
        """Wait until its init has ended; as `Process.wait`."""
        return await self.init.wait()

    def send_signal(self, number: signal.Signals | int) -> None:
        """Send a signal to its init; as `Process.send_signal`."""
        self.init.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM to its init."""
        self.init.terminate()

    def close_stdin(self) -> None:
        """End its init's standard input; as `Process.close_stdin`."""
        self.init.close_stdin()

    async def attach(self) -> TerminalStream:
        """Attach to its init's terminal; as `Process.attach`."""
        return await self.init.attach()

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its init's terminal; as `Process.resize`."""
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
        """Read its init's log; as `Process.logs`."""
        return self.init.logs(follow=follow, since=since, until=until, tail=tail, after=after)
