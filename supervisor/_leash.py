"""The leash: a pipe and a pidfd by which shims and the keeper see that a supervisor is gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import trio

from .children import PidFd
from .directories import Root, Temporary, paths, remains, still_there, tell, unmade
from .native import find_binary
from .shim import KeeperFds, Leash, launch_keeper
from .system import Descriptor, close_in_children, lifted, lifted_pipe
from .tasks import forked, shielded, undoing
from .values import ShimError, SupervisorError, raise_if_scarce

_KEEPER_SECONDS = 15.0


@contextlib.asynccontextmanager
async def held_leash(root: Root, *, apart: Sequence[str] = ()) -> AsyncIterator[Leash]:
    """Hold a leash for the containers below a durable root, with a keeper at the other end.

    ``apart`` lists the files by which the keeper gets into a cgroup of its own.

    At the end of the block the leash is broken, and the keeper has removed what was left; a
    warning in the log names what the keeper couldn't remove.

    Raises:
        ShimNotFound, ShimError, TooManyFiles: there is no keeper, or no descriptor for it.
    """
    keeper = Keeper(root.path, root.fd, apart=apart)
    try:
        await keeper.wait_ready()
        yield keeper.leash
    finally:
        await _leave(keeper, root.path, root.fd, apart)


@contextlib.asynccontextmanager
async def ephemeral_root(*, apart: Sequence[str] = ()) -> AsyncIterator[tuple[Root, Leash]]:
    """Hold a leash with an ephemeral root, which the keeper makes and removes.

    ``apart``: see `held_leash`, also for the end of the block. The root stays as long as the
    keeper is at work there, since the root contains the keeper's lists.

    Raises:
        InvalidValue: the place that the environment names can't be used.
        ShimNotFound, ShimError, DiskFull, TooManyFiles, InfrastructureError: see each; nothing is
            left.
    """
    keeper, made = await keep_temporary(apart=apart)
    try:
        yield Root(made.path, made.fd), keeper.leash
    finally:
        if await _leave(keeper, made.path, made.fd, apart):
            made.remove()
        made.close()


async def _leave(keeper: Keeper, root: str, directory: int, apart: Sequence[str]) -> bool:
    """Break a leash, log what is left, and return whether all keepers have ended."""
    before = remains(root)
    ended = await keeper.let_go()
    if ended and remains(root):  # the keeper was killed, or had too little time
        with contextlib.suppress(SupervisorError, OSError):
            another = Keeper(root, directory, apart=apart)
            try:
                await another.wait_ready()
            finally:
                ended = await another.let_go()
    if not forked():
        tell(root, still_there(before), at_work=not ended)
    return ended


@undoing
async def keep_temporary(*, apart: Sequence[str] = ()) -> tuple[Keeper, Temporary]:
    """Have a keeper make a temporary directory, which the keeper removes when the leash breaks.

    Raises: as `ephemeral_root`.
    """
    for path in paths(marked=False):  # without our pid: the directory is the keeper's
        keeper = _keeper_in(path, apart)
        try:
            await keeper.wait_ready()
            return keeper, Temporary.found(path)
        except FileExistsError:
            await keeper.let_go()
        except BaseException as error:
            await keeper.let_go()
            if isinstance(error, OSError):
                raise unmade(error, path) from error
            raise
    raise AssertionError("names never end")


def _keeper_in(path: str, apart: Sequence[str]) -> Keeper:
    try:
        parent = lifted(os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise unmade(error, path) from error
    try:
        return Keeper(path, parent, make_root=True, apart=apart)
    finally:
        os.close(parent)


class Keeper:
    """A leash that we hold, and the keeper at the other end.

    `let_go` breaks the leash, and so does our death, of any cause. The keeper isn't our child: a
    signal to our children doesn't reach the keeper.
    """

    def __init__(
        self, root: str, directory: int, *, make_root: bool = False, apart: Sequence[str] = ()
    ) -> None:
        """Launch the keeper.

        Args:
            root: the path of the root.
            directory: the opened root; or the opened directory where the root will be made.
            make_root: whether the keeper makes the root, and removes the root at the end.
            apart: the files by which the keeper gets into a cgroup of its own.
        """
        binary, tether = find_binary("supervisor-keeper"), find_binary("supervisor-tether")
        self._root = root
        try:
            with contextlib.ExitStack() as undo:
                pidfd = lifted(os.pidfd_open(os.getpid()))
                undo.callback(os.close, pidfd)
                read_fd, write_fd = lifted_pipe()
                undo.callback(os.close, read_fd)
                undo.callback(os.close, write_fd)
                self._life, told = lifted_pipe()
                undo.callback(os.close, self._life)
                self.leash = Leash(pipe_fd=read_fd, pidfd=pidfd, tether=tether)
                try:
                    self._launching = launch_keeper(
                        binary,
                        root,
                        KeeperFds(self.leash, directory=directory, ready=told),
                        make_root=make_root,
                        apart=apart,
                    )
                finally:
                    os.close(told)
                undo.pop_all()
        except OSError as error:
            raise_if_scarce(error)
            raise
        # A forked child would hold our end after our death, and has no use for the other two.
        self._ends: list[Descriptor] = [close_in_children(fd) for fd in (write_fd, read_fd, pidfd)]
        self._process: PidFd | None = None

    @undoing
    async def wait_ready(self) -> None:
        """Return when the keeper watches the leash.

        Raises:
            FileExistsError: the root's path exists already.
            DiskFull, OSError: the root can't be made.
            ShimError: the keeper has ended.
        """
        told = b""
        with shielded(_KEEPER_SECONDS):
            await trio.lowlevel.wait_readable(self._life)
            told = os.read(self._life, 64)
            await self._launching.wait_ended()
        self._launching.reap()
        self._launching.close()
        number = int(told or 0)
        if number < 0:
            error = OSError(-number, os.strerror(-number))
            raise_if_scarce(error)
            raise error
        if number > 0:
            self._process = PidFd.open(number)
        if self._process is None:
            raise ShimError("the keeper ended at once, or can't be opened: nothing was made")

    @undoing
    async def let_go(self) -> bool:
        """Break the leash, and wait until the keeper has removed what is left.

        If we are the subreaper or pid 1, the keeper became our child, and we reap it. The wait
        lasts as long as the keeper makes progress: each container may take a while.

        Returns:
            Whether the keeper has ended.

        In a forked child the leash stays whole, and the keeper isn't waited for.

        Cancellation: shielded, with a deadline of its own.
        """
        for end in self._ends:
            end.close()
        left, before = remains(self._root), None
        ended = self._process is None
        while self._process is not None and not ended and left != before:
            with shielded(_KEEPER_SECONDS):
                await self._process.wait_ended()
                ended = True
            left, before = remains(self._root), left
        if self._process is not None and not ended and not forked():
            self._process.reap_later()
        for process in (self._launching, self._process):
            if process is not None:
                process.reap()
                process.close()
        if self._life >= 0:
            trio.lowlevel.notify_closing(self._life)
            os.close(self._life)
            self._life = -1
        return ended
