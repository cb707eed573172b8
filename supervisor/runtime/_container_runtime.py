"""The runtime of one container: the supervisor's own calls, and the calls that shims make."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from ..state import ContainerRecord
from ..system import Lock
from ..values import Deadlines, RuntimeFailed
from ._call import fresh_log, run
from ._command import Call, Head
from ._copies import detach_copies
from ._sealed import SealedPrograms

STARTED: Final = frozenset({"running", "paused"})
"""The runtime's names for the state of a started container: a paused one goes on when thawed."""

_SHARE: Final = 2 / 3


@attrs.frozen(kw_only=True)
class ContainerRuntime:
    """The runtime of one container.

    `create`, `exec` and `restore` return a `Call` for a shim: the runtime leaves a process behind,
    which the shim watches. All other calls are made from here, and the call holds the container's
    lock until the end.

    Attributes:
        head: the program, the root and the container.
        no_pivot: whether create and restore get ``--no-pivot``.
        deadlines: how long calls may take.
        lock: a descriptor of the container's lock, or None.
    """

    head: Head
    no_pivot: bool = False
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    lock: int | None = None

    @classmethod
    def of(
        cls,
        record: ContainerRecord,
        *,
        lock: Lock | None = None,
        programs: SealedPrograms | None = None,
        tether: str | None = None,
        deadlines: Deadlines | None = None,
    ) -> ContainerRuntime:
        """Return the runtime that a container's record names."""
        head = Head(
            path=record.runtime,
            root=record.runtime_root,
            args=record.runtime_args,
            container=record.id,
            programs=programs,
            tether=tether,
        )
        return cls(
            head=head,
            no_pivot=record.no_pivot_root,
            deadlines=deadlines or Deadlines(),
            lock=None if lock is None else lock.fd,
        )

    # ---- what a shim calls -----------------------------------------------------------------

    def create(
        self,
        *,
        bundle: str,
        pid_file: str,
        console_socket: str | None = None,
        preserve_fds: int = 0,
        log: str | None = None,
    ) -> Call:
        """Make the container and the init, which waits to be started.

        The init gets ``preserve_fds`` descriptors of the runtime's, from 3 on.
        """
        preserved = ["--preserve-fds", str(preserve_fds)] if preserve_fds else []
        options = ["--bundle", bundle, "--pid-file", pid_file, *_console(console_socket)]
        return self._call("create", *options, *preserved, *self._pivot(), log=log)

    def exec(
        self,
        *,
        process: str,
        pid_file: str,
        console_socket: str | None = None,
        log: str | None = None,
    ) -> Call:
        """Start a further process, described by the file ``process``, and return at once."""
        options = ["--detach", "--pid-file", pid_file, *_console(console_socket)]
        return attrs.evolve(self._call("exec", *options, log=log), process=process)

    def restore(
        self,
        *,
        bundle: str,
        pid_file: str,
        image: str,
        work: str,
        options: Iterable[str] = (),
        console_socket: str | None = None,
        log: str | None = None,
    ) -> Call:
        """Make the container from a checkpoint in ``image``; the program runs at once."""
        places = ["--bundle", bundle, "--pid-file", pid_file]
        places += ["--image-path", image, "--work-path", work]
        console = _console(console_socket)
        return self._call(
            "restore", "--detach", *places, *options, *console, *self._pivot(), log=log
        )

    # ---- what is called from here ------------------------------------------------------------

    async def start(self, *, log: str, patience: Callable[[], float]) -> None:
        """Let the init of a created container run the user's program.

        Raises, Cancellation: as `run`.
        """
        call = self._held("start", log=fresh_log(log))
        await run(call, seconds=self.deadlines.start, patience=patience)

    async def checkpoint(
        self, *, image: str, work: str, options: Iterable[str] = (), log: str
    ) -> None:
        """Write the container's processes to ``image``; they end, without ``--leave-running``.

        Raises, Cancellation: as `run`.
        """
        places = ["--image-path", image, "--work-path", work]
        call = self._held("checkpoint", *places, *options, log=fresh_log(log))
        await run(call, seconds=self.deadlines.create)

    async def delete(self, *, log: str, has_hooks: Callable[[], bool]) -> None:
        """Kill what is left of the container, and forget it; a missing one is no error.

        Args:
            log: where the runtime logs.
            has_hooks: tells whether a delete runs hooks. Hooks may take a part of the clean-up's
                time, not all of the time: further steps follow.

        Raises, Cancellation: as `run`.
        """
        call = self.deletion(log=fresh_log(log))
        detach_copies(self.head.place)
        await run(
            attrs.evolve(call, lock=self.lock),
            seconds=min(self.deadlines.call, self.deadlines.cleanup * _SHARE),
            done=lambda _: not self.knows(),
            past_hooks=has_hooks,
        )

    def deletion(self, *, log: str | None = None) -> Call:
        """Return the call that `delete` makes; a keeper makes the same call."""
        return self._call("delete", "--force", log=log)

    async def status(self) -> str | None:
        """Return ``creating``, ``created``, ``running``, ``paused`` or ``stopped``.

        Returns:
            None if the runtime doesn't know the container, or gives another answer.

        Raises:
            RuntimeTimeout: the runtime didn't answer in time.
            RuntimeNotFound: the runtime was removed, or can't be executed.
            TooManyFiles, TooManyProcesses, OSError: the call isn't possible just now.

        Cancellation: as `run`.
        """
        return await self._ask("status")

    async def bundle(self) -> str | None:
        """Return the path of the bundle that the container was made from.

        Returns, Raises, Cancellation: as `status`.
        """
        return await self._ask("bundle")

    def knows(self) -> bool:
        """Whether the runtime has files of the container."""
        return os.path.lexists(self.head.place)

    async def _ask(self, key: str) -> str | None:
        """Ask for the container's state (OCI runtime spec, "Query State")."""
        try:
            answer = await run(
                self._held("state"),
                seconds=self.deadlines.call,
                done=lambda output: _value(output, key) is not None,
            )
        except RuntimeFailed:
            return None
        return _value(answer, key)

    def _call(self, verb: str, *options: str, log: str | None = None) -> Call:
        return Call(head=self.head, verb=verb, options=options, log=log)

    def _held(self, verb: str, *options: str, log: str | None = None) -> Call:
        return attrs.evolve(self._call(verb, *options, log=log), lock=self.lock)

    def _pivot(self) -> list[str]:
        return ["--no-pivot"] if self.no_pivot else []


def _console(socket: str | None) -> list[str]:
    return [] if socket is None else ["--console-socket", socket]


def _value(answer: bytes, key: str) -> str | None:
    """Return a text in a container's state; None if there is none."""
    try:
        told = json.loads(answer)[key]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return told if isinstance(told, str) else None
