"""The leash: a pipe and a pidfd that tell shims and the keeper that a supervisor let go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import trio

from .children import PidFd
from .directories import Root, Temporary, paths, remains, still_there, tell, unmade
from .native import find_binary
from .process import shielded
from .shim import KeeperFds, Leash, launch_keeper
from .system import Descriptor, close_in_children, lifted, lifted_pipe, scarce
from .tasks import forked, undoing
from .values import ShimError, SupervisorError, scarcity

_KEEPER_SECONDS = 15.0


@contextlib.asynccontextmanager
async def held_leash(root: Root, *, apart: Sequence[str] = ()) -> AsyncIterator[Leash]:
    """Hold a leash for what is below a durable root, with a keeper at its other end.

    ``apart`` says by what files the keeper gets into a cgroup of its own.

    At the end of the block the leash is broken, and the keeper has removed what is left; a warning
    in the log tells what it couldn't.

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
    """Hold a leash with a root that goes with us: it is made and removed by the keeper.

    ``apart``: see `held_leash`, also for the end of the block. As long as the keeper is at work
    there, the root stays, since the lists are in it that it works off.

    Raises:
        InvalidValue: the place that the environment names can't be used.
        ShimNotFound, ShimError, DiskFull, TooManyFiles, InfrastructureError: as they say;
            nothing is left.
    """
    keeper, made = await keep_temporary(apart=apart)
    try:
        yield Root(made.path, made.fd), keeper.leash
    finally:
        if await _leave(keeper, made.path, made.fd, apart):
            made.remove()
        made.close()


async def _leave(keeper: Keeper, root: str, directory: int, apart: Sequence[str]) -> bool:
    """Break a leash, and say what is left then; return whether no keeper is at work any more."""
    before = remains(root)
    ended = await keeper.let_go()
    if ended and remains(root):  # somebody has killed it, or it was given too little time
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
    """Have a keeper make a temporary directory, and remove it when its leash breaks.

    Raises: as `ephemeral_root`.
    """
    for path in paths(marked=False):  # the keeper's, which outlives us
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
    """A leash that we hold, and the keeper at its other end.

    It is broken by `let_go`, or by our death, however that comes. The keeper is nobody's child:
    who ends our children with us doesn't end it.
    """

    def __init__(
        self, root: str, directory: int, *, make_root: bool = False, apart: Sequence[str] = ()
    ) -> None:
        """Launch it.

        Args:
            root: the path of the root.
            directory: the root, open; or the directory that it is to be made in.
            make_root: whether the keeper makes the root, and removes it in the end.
            apart: by what files the keeper gets into a cgroup of its own.
        """
        binary, tether = find_binary("supervisor-keeper"), find_binary("supervisor-tether")
        self._root = root
        with contextlib.ExitStack() as undo, scarce():
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
                    ways=apart,
                )
            finally:
                os.close(told)
            undo.pop_all()
        # A forked child would hold our end after our death, and the others for nothing.
        self._ends: list[Descriptor] = [close_in_children(fd) for fd in (write_fd, read_fd, pidfd)]
        self._process: PidFd | None = None

    @undoing
    async def wait_ready(self) -> None:
        """Return when the keeper watches its leash.

        Raises:
            FileExistsError: there is something at the root's path.
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
            raise error if isinstance(error, FileExistsError) else scarcity(error)
        if number > 0:
            self._process = PidFd.open(number)
        if self._process is None:
            raise ShimError("the keeper ended at once, or can't be reached: nothing was made")

    @undoing
    async def let_go(self) -> bool:
        """Break the leash, and wait until the keeper has removed what is left.

        It is for us to reap where we are the subreaper, or pid 1, that it was left to. It is waited
        for as long as it gets on: each container may take a while.

        Returns:
            Whether it has ended.

        In a forked child nothing is broken, and the keeper isn't its to wait for.

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
