"""The pool: a fresh container for each taker, created ahead of time, for the price of a start."""

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
from ..observers import name_suffix
from ..rootfs import AccountOptions, check_account
from ..running import CollectOptions, Completed, feed, run_options, stay
from ..runtime import Runtime
from ..spec import PrivilegeOptions, check_privileges
from ..stdio import PIPE, StdioArgument, check_outputs
from ..tasks import (
    background_nursery,
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
    """The user and the privileges of a pool's programs; see `Supervisor.create`."""


class PoolRunOptions(TakeOptions, total=False):
    """Options for one program that runs to the end in a container of a pool.

    Attributes:
        max_output_bytes: how many bytes of each output are collected, at most. A program that
            writes more is killed, as by `run_container`.
        check: whether any exit status but 0 raises an error; True by default.
        deadline: how many seconds the program may run before the pool kills the program.
    """

    max_output_bytes: int | None
    check: bool
    deadline: float | None


@attrs.frozen(kw_only=True)
class PoolStatistics:
    """A pool's numbers at one moment.

    Attributes:
        ready: containers that wait to be taken.
        creating: containers that are being created.
        taken: containers that takers have.
        deleting: containers that are being deleted.
        waiting: takers that wait for a container.
        created: how many containers were created so far.
        failed: how many creates and deletes failed, plus how many containers died while they
            waited.
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
    """Containers that are created ahead of time and wait at a start gate until they are taken.

    Use ``async with ContainerPool(bundle, size=4, supervisor=sup) as pool:``, once per pool. Each
    container serves one taker. The taker waits for the start only, and gets a running container.
    Afterwards the pool deletes that container and makes another one, both in the background. The
    taker says which program runs; everything else was fixed when the container was created.
    docs/pools.md has the two lists.

    At most ``size`` containers are ready or being created. All are the supervisor's containers,
    with the label ``supervisor.pool``.

    Args:
        bundle: a `Bundle`, or the path of one.
        size: how many containers are kept ready; 1 or more.
        supervisor: the supervisor that creates the containers; None for an ephemeral supervisor,
            opened for this pool.
        runtime: as for `open_supervisor`; only without ``supervisor``.
        stdout, stderr: of each container, as for `Supervisor.create`.
        backoff: how long the pool waits after failed creates.
        options: ``user``, ``group``, ``extra_groups``, ``umask``, ``capabilities``, ``rlimits``,
            ``oom_score_adj`` and ``seccomp`` of each container, as for `Supervisor.create`.

    Raises:
        InvalidValue, BundleInvalid: the arguments can't work together; nothing was touched.
        On entering: ShimNotFound, and all that `open_supervisor` raises.
        An exception of the block comes out unchanged, not in a group.

    Cancellation: as at the end of the block, all containers of the pool are deleted, also the
    taken ones. The deletes are shielded and have the supervisor's deadlines.

    Crash: an ephemeral supervisor leaves nothing. With a root on disk, the next open adopts the
    pool's containers like all others; ``delete_unstarted=True`` deletes those that were never
    taken.
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
            raise BundleInvalid("no process to run", path=self._bundle.path, where="process")
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

    # ---- facts --------------------------------------------------------------------------

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The last errors of creates and deletes, at most 16, the newest last."""
        return () if self._loans is None else tuple(self._loans.stock.failures)

    def statistics(self) -> PoolStatistics:
        """Return the pool's numbers of this moment."""
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

        Raises: as `take`, if the containers can't be made.

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
        """Take a container and run a program inside: ``async with pool.take() as box:``.

        At the end of the block the pool kills the container and deletes it in the background.
        Takers that find no container ready are served in the order in which they asked.

        Args:
            args: the program and its arguments, in place of the bundle's; looked up in the
                container's PATH. The init of a bundle with ``init=True`` runs in front of them.
            options: see `TakeOptions`: ``env``, ``cwd``, ``stdin`` and ``files``.

        Raises:
            InvalidValue: an argument can't work; nothing was touched.
            GateFailed: there is no such program, directory or place for a file inside; or the
                files filled the container's memory limit, and the kernel killed the container.
            SupervisorError, OSError: no container could be created. The pool first makes three
                attempts, with growing waits in between; a create that timed out isn't repeated.
            An exception of the block comes out unchanged, not in a group.
            trio.ClosedResourceError: the pool isn't open.

        Cancellation: a container that was taken is deleted in the background.
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
        """Take a container and run a program to the end inside, as `run_container` does.

        Args:
            args: as for `take`.
            options: as for `take`, plus ``max_output_bytes``, ``check`` and ``deadline``: see
                `PoolRunOptions`. ``stdin=PIPE`` is possible only with ``nursery.start``, which
                gives the caller the container, so that the caller can write to ``box.stdin``.

        Returns:
            The exit status and the output, as far as the pool's ``stdout`` and ``stderr`` are
            PIPE. The output is read as by `run_container`.

        Raises:
            ProcessFailed: with ``check``, the program didn't exit with 0; carries the output.
            DeadlineExpired: the program ran longer than ``deadline``; carries the output so far.
            OutputTooLarge: the program wrote too much; carries the output so far.
            All that `take` raises.

        Cancellation: the container is killed and deleted, in the background.
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
        await trio.lowlevel.checkpoint()  # with a caller's supervisor nothing else waits here
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
