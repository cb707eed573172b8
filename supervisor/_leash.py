"""The leash: a pipe and a pidfd that tell shims and the keeper that a supervisor let go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

from ._claim import is_shared, proof
from ._errors import scarcity
from ._host import shielded
from .cgroups import Hierarchies
from .oci import Bundle, Caller
from .shim import Leash, find_binary, launch_keeper
from .state import (
    ContainerRecord,
    Descriptor,
    close_in_children,
)

_KEEPER_SECONDS = 15.0


@contextlib.asynccontextmanager
async def held_leash(
    root: str, *, remove_root: bool, apart: Sequence[str] = ()
) -> AsyncIterator[Leash]:
    """Hold a leash for what is below ``root``, with a keeper at its other end.

    ``apart`` says by what files that gets into a cgroup of its own.

    At the end of the block it is let go, and the keeper has removed what is left.

    Raises:
        ShimNotFound, TooManyFiles: there is no keeper, or no descriptor for it.
    """
    binary = find_binary("supervisor-keeper")
    keeper = Keeper(binary, root, remove_root=remove_root, apart=apart)
    try:
        yield keeper.leash
    finally:
        await keeper.let_go()


class Keeper:
    """A leash that we hold, and the keeper at its other end.

    It is broken by `let_go`, or by our death, however that comes.
    """

    def __init__(
        self, binary: str, root: str, *, remove_root: bool, apart: Sequence[str] = ()
    ) -> None:
        try:
            pidfd = os.pidfd_open(os.getpid())
            try:
                read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            except BaseException:
                os.close(pidfd)
                raise
        except OSError as error:
            raise scarcity(error) from error
        # A forked child would hold our end after our death, and the others for nothing.
        self._ends: list[Descriptor] = [close_in_children(fd) for fd in (write_fd, read_fd, pidfd)]
        self.leash = Leash(pipe_fd=read_fd, pidfd=pidfd)
        try:
            self._process = launch_keeper(
                binary, root, self.leash, remove_root=remove_root, ways=apart
            )
        except BaseException:
            self._close()
            raise

    async def let_go(self) -> None:
        """Break the leash, and wait until the keeper has removed what is left.

        Cancellation: shielded, with a deadline of its own.
        """
        self._close()
        with shielded(_KEEPER_SECONDS):
            await self._process.wait_ended()
        self._process.reap()
        self._process.close()

    def _close(self) -> None:
        for end in self._ends:
            end.close()


def cleanup_list(record: ContainerRecord, hierarchies: Hierarchies, bundle: Bundle) -> bytes:
    """Return what the keeper has to do for a container, should we die (docs/shim-protocol.md)."""
    caller = Caller(runtime=record.runtime, root=record.runtime_root, args=record.runtime_args)
    run = ["owned", *proof(record)] if is_shared(record) else ["run"]
    steps = [[*run, *caller.delete(record.id, force=True)]]
    if record.cgroup is not None:
        steps += [["cgroup", path] for path in hierarchies.directories(record.cgroup)]
    if bundle.temporary:  # it goes with the program that made it
        steps.append(["remove", bundle.path])
    text = "".join("".join(f"{word}\0" for word in step) + "\0" for step in steps)
    return os.fsencode(text)
