"""Containers that are created ahead: a fresh one for every example, for the price of a start."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self, Unpack, cast

import attrs
import trio

from .._run import borrowed, check_place
from .._supervisor import Supervisor
from ..bundle import Bundle, gate_path
from ..container import Container
from ..rootfs import AccountOptions, check_account
from ..running import CollectOptions, Completed, feed, run_options, stay
from ..runtime import Runtime
from ..spec import PrivilegeOptions, check_privileges
from ..stdio import PIPE, StdioArgument, check_outputs
from ..tasks import (
    background_nursery,
    name_suffix,
    opening,
    protected,
    refuse_forked,
    undoing,
)
from ..values import (
    Backoff,
    BundleInvalid,
    InvalidValue,
    ProcessEnded,
    check_int,
    check_kind,
    picked,
    require_known,
)
from ._entry import Entry, TakeOptions, pool_request
from ._loans import Loans
from ._stock import Failure, Stock

POOL_LABEL = "supervisor.pool"
MAX_SIZE = 1 << 20


class PoolOptions(AccountOptions, PrivilegeOptions, total=False):
    """Who the programs of a pool run as, and what they may do: as for `Supervisor.create`."""


class PoolRunOptions(TakeOptions, total=False):
    """What a program is given that runs to its end in a container of a pool.

    Attributes:
        max_output_bytes: how many bytes are collected of each of its outputs, at most; the
            program is killed if there are more. As for `run_container`.
        check: whether anything but exit code 0 raises; it does by default.
        deadline: how many seconds the program may run; then it is killed.
    """

    max_output_bytes: int | None
    check: bool
    deadline: float | None


@attrs.frozen(kw_only=True)
class PoolStatistics:
    """What a pool has, at one moment.

    Attributes:
        ready: containers that wait to be taken.
        creating: those that are being created.
        taken: those that somebody has.
        deleting: those that are being deleted.
        waiting: takers that wait for one.
        created: how many were created so far.
        failed: how many creates and deletes have failed, and containers died while they waited.
    """

    ready: int
    creating: int
    taken: int
    deleting: int
    waiting: int
    created: int
    failed: int


@protected
class ContainerPool:
    """Containers that were created ahead and wait at their start gate, to be taken one by one.

    ``async with ContainerPool(bundle, size=4, supervisor=sup) as pool:``, once. Each of them is
    for one taker, who gets it started, and pays no more than the start; afterwards it is deleted
    and another one made, both in the background. What it runs is said when it is taken, in the
    bounds of what was settled when it was created: docs/pools.md has the two lists.

    At most ``size`` are ready or being created. Its containers are the supervisor's, and have
    the label ``supervisor.pool``.

    Args:
        bundle: a `Bundle`, or the path of one.
        size: how many are kept ready; 1 or more.
        supervisor: whose containers they shall be; None for an ephemeral one of its own.
        runtime: as for `open_supervisor`; only without ``supervisor``.
        stdout, stderr: of each container, as for `Supervisor.create`.
        backoff: how long it waits after creates that have failed.
        options: ``user``, ``group``, ``extra_groups``, ``umask``, ``capabilities``, ``rlimits``,
            ``oom_score_adj`` and ``seccomp`` of each container, as for `Supervisor.create`.

    Raises:
        InvalidValue, BundleInvalid: the arguments don't go together; nothing was touched.
        On entering: ShimNotFound, and what `open_supervisor` raises.
        What the block raises comes out as it is, not in a group.

    Cancellation: as leaving the block. All of its containers are deleted, also those that were
    taken, shielded, with the supervisor's deadlines.

    Crash: an ephemeral supervisor leaves nothing. On a root, the next open finds them as it finds
    all containers: ``delete_unstarted=True`` deletes those that nobody had taken.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        size: int = 4,
        supervisor: Supervisor | None = None,
        runtime: str | os.PathLike[str] | Runtime | None = None,
        stdout: StdioArgument = PIPE,
        stderr: StdioArgument = PIPE,
        backoff: Backoff | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        require_known(options, PoolOptions, "ContainerPool")
        check_int(size, "size", least=1, most=MAX_SIZE)
        runtime = None if runtime is None else Runtime.find(runtime)
        check_place(supervisor, runtime)
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if "process" not in self._bundle.spec:
            raise BundleInvalid("it has no process to run", path=self._bundle.path, where="process")
        self._size = size
        self._supervisor = supervisor
        self._runtime = runtime
        self._outputs = {"stdout": stdout, "stderr": stderr}
        check_outputs(stdout=stdout, stderr=stderr)
        self._privileges = {
            **attrs.asdict(check_privileges(**picked(options, PrivilegeOptions)), recurse=False),
            **attrs.asdict(check_account(**picked(options, AccountOptions))),
        }
        self._backoff = check_kind(Backoff() if backoff is None else backoff, Backoff, "backoff")
        self._name = f"pool-{name_suffix()}"
        self._numbers = itertools.count(1)
        self._created = 0
        self._loans: Loans | None = None
        self._context = self._open()

    async def __aenter__(self) -> Self:
        if self._loans is not None:
            raise InvalidValue("a pool can be opened once: make another one")
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<supervisor.ContainerPool {self._name!r}: {self.statistics().ready} ready>"

    # ---- what it is ---------------------------------------------------------------------

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last errors of its creates and deletes, at most 16, the newest last."""
        return () if self._loans is None else tuple(self._loans.stock.failures)

    def statistics(self) -> PoolStatistics:
        """Return what it has now."""
        stock = None if self._loans is None else self._loans.stock
        return PoolStatistics(
            ready=0 if stock is None else stock.ready,
            creating=0 if stock is None else stock.creating,
            taken=0 if self._loans is None else len(self._loans.taken),
            deleting=0 if stock is None else stock.deleting,
            waiting=0 if stock is None else stock.waiting,
            created=self._created,
            failed=0 if stock is None else stock.failed,
        )

    async def wait_full(self) -> None:
        """Return when ``size`` containers are ready.

        Raises: as `take`, if they can't be made.

        Cancellation: nothing happens.
        """
        await self._open_loans().stock.wait_full()

    # ---- taking -------------------------------------------------------------------------

    @opening
    @contextlib.asynccontextmanager
    async def take(
        self,
        args: Sequence[str] | None = None,
        **options: Unpack[TakeOptions],
    ) -> AsyncIterator[Container]:
        """Take a container, in which your program runs: ``async with pool.take() as box:``.

        At the end of the block it is killed, if it still runs, and deleted in the background.
        Takers who find none ready are served in the order of their coming.

        Args:
            args: the program and its arguments, in place of the bundle's; looked up in the
                container's PATH. The init of a bundle with ``init=True`` stays in front of them.
            options: see `TakeOptions`: ``env``, ``cwd``, ``stdin`` and ``files``.

        Raises:
            InvalidValue: an argument can't work; nothing was touched.
            GateFailed: there is no such program, directory or place for a file inside; or they
                killed the container.
            SupervisorError, OSError: none could be created. Three attempts are made before, with
                growing waits between them; a create that ran out of time isn't repeated.
            What the block raises comes out as it is, not in a group.
            trio.ClosedResourceError: the pool isn't open.

        Cancellation: whatever was taken is deleted, in the background.
        """
        require_known(options, TakeOptions, "take")
        wanted = pool_request(self._bundle.spec, args, options)
        async with self._open_loans().entry(wanted) as entry:
            if not entry.rest or entry.box.init.stdin is None:
                yield entry.box
                return
            async with background_nursery() as nursery:
                nursery.start_soon(
                    feed,
                    entry.box.init.stdin,
                    entry.rest,
                    name=f"{entry.box.id}/init: stdin",
                )
                yield entry.box

    @undoing
    async def run(
        self,
        args: Sequence[str] | None = None,
        *,
        task_status: trio.TaskStatus[Container] = trio.TASK_STATUS_IGNORED,
        **options: Unpack[PoolRunOptions],
    ) -> Completed:
        """Run a program to its end in a container that is taken for it; as `run_container`.

        Args:
            args: as for `take`.
            options: as for `take`, but somebody has to feed it, so PIPE only with
                ``nursery.start``, which gives the container; and ``max_output_bytes``, ``check``
                and ``deadline``: see `PoolRunOptions`.

        Returns:
            How it ended, and its output, as far as the pool's ``stdout`` and ``stderr`` are PIPE.
            They are read as `run_container` reads them.

        Raises:
            ProcessFailed: with ``check``, it didn't exit with 0; carries what was captured.
            DeadlineExpired: it ran longer than ``deadline``; carries what was captured until then.
            OutputTooLarge: it put out more than ``max_output_bytes``; carries what was captured.
            All that `take` raises.

        Cancellation: it is killed and deleted, in the background.
        """
        require_known(options, PoolRunOptions, "run")
        stdin = options.get("stdin", b"")
        wanted = run_options(
            started=task_status is not trio.TASK_STATUS_IGNORED,
            capture_stdout=self._outputs["stdout"] == PIPE,
            capture_stderr=self._outputs["stderr"] == PIPE,
            **{**picked(options, CollectOptions), "stdin": b"" if stdin is None else stdin},
        )
        prepared = pool_request(self._bundle.spec, args, cast(TakeOptions, options))
        async with self._open_loans().entry(prepared) as entry:
            task_status.started(entry.box)
            return await stay(
                entry.box.init,
                attrs.evolve(wanted, input=entry.rest or None),
                check=options.get("check", True),
                deadline=options.get("deadline"),
                end=lambda: _kill(entry.box),
            )

    def _open_loans(self) -> Loans:
        if self._loans is None:
            raise trio.ClosedResourceError("the pool isn't open: async with ContainerPool(...)")
        refuse_forked()
        return self._loans

    # ---- making and closing -------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        gate = gate_path()
        await trio.lowlevel.checkpoint()  # a supervisor that is there waits for nothing
        async with borrowed(self._supervisor, self._runtime) as supervisor:
            async with background_nursery() as nursery:
                stock = Stock(
                    lambda: self._make(supervisor, gate),
                    nursery,
                    size=self._size,
                    deletes_at_once=2 * (os.cpu_count() or 1),
                    backoff=self._backoff,
                )
                self._loans = Loans(stock)
                nursery.start_soon(stock.fill, name=f"{self._name}: fill")
                try:
                    yield
                finally:
                    stock.close()
                    self._loans.end()

    async def _make(self, supervisor: Supervisor, gate: str) -> Entry:
        entry = await Entry.make(
            supervisor,
            self._bundle,
            id=f"{self._name}-{next(self._numbers)}",
            gate=gate,
            labels={POOL_LABEL: self._name},
            privileges=self._privileges,
            **self._outputs,
        )
        self._created += 1
        return entry


async def _kill(box: Container) -> RuntimeWarning | None:
    with contextlib.suppress(ProcessEnded):
        box.kill()
    return None
