"""How a process ended: from its shim's record, the kernel, or the supervisor that holds it."""

from __future__ import annotations

import contextlib
import os

import attrs

from ..children import PidFd
from ..state import ProcessLayout, Result, load, read_exit_status
from ..tasks import nap, within
from ..values import Cause, ExitStatus, Source, StateCorrupt, TooManyFiles, unknown
from ._shared import Shared

_POLL_SECONDS = 0.005


@attrs.frozen(kw_only=True)
class LostProcess:
    """What there is of a process that no shim watches any more.

    Attributes:
        shared: what its supervisor's parts share.
        layout: its directory.
        process: itself, if it is certain.
        cgroup: its container's, if everything in there may be killed with it: an init's.
        lost: the status if nothing is recorded and it can't be found.
        keep: whether it is waited for, and not killed, though its shim was lost.
    """

    shared: Shared
    layout: ProcessLayout
    process: PidFd | None
    cgroup: str | None
    lost: ExitStatus | None
    keep: bool

    async def verdict(self) -> ExitStatus:
        """Return how it ended; one that is alive, its shim being dead, is killed, or waited for."""
        return self.recorded() or await self._end_lost()

    async def foreign_verdict(self) -> ExitStatus:
        """Return how it ended, as the supervisor that holds it settles that."""
        status = self.recorded()
        if status is None and self.keep and self.process is not None:
            await self.process.wait_ended()
        with within(self.shared.deadlines.kill):
            while status is None and os.path.lexists(self.layout.path):  # else it is deleted
                with contextlib.suppress(FileNotFoundError, StateCorrupt):
                    status = load(Result, self.layout.result).status
                await nap(_POLL_SECONDS)
        if status is not None:
            return status
        return self.told_by_kernel("the supervisor that holds it doesn't say how it ended")

    def recorded(self) -> ExitStatus | None:
        """Return what its shim has recorded; None if that is nothing."""
        try:
            return read_exit_status(self.layout.exit_status)
        except StateCorrupt as error:
            return unknown(f"the shim's record can't be read: {error.reason}")
        except TooManyFiles:
            raise
        except OSError as error:
            return unknown(f"the shim's record can't be read: {error}")

    async def _end_lost(self) -> ExitStatus:
        if self.process is None:
            if self.cgroup is not None and not self.shared.opener.elsewhere():
                await self.shared.hierarchies.kill(self.cgroup)  # whoever it is, it is in there
            return self.lost or unknown("its shim was lost, and its pid can't be verified")
        if self.keep:
            await self.process.wait_ended()
        self.process.kill()
        with within(self.shared.deadlines.kill):
            await self.process.wait_reaped()
        return self.told_by_kernel("its shim was lost, and the kernel doesn't tell how it ended")

    def told_by_kernel(self, otherwise: str) -> ExitStatus:
        """Return what the kernel tells of its end; unknown, for that reason, if that is nothing."""
        status = None if self.process is None else self.process.wait_status()
        return unknown(otherwise) if status is None else _from_kernel(status)


def _from_kernel(status: int) -> ExitStatus:
    """Return the exit status for a wait status (man 2 wait)."""
    if os.WIFSIGNALED(status):
        return ExitStatus(
            cause=Cause.SIGNALLED,
            source=Source.KERNEL,
            signal=os.WTERMSIG(status),
            core_dumped=os.WCOREDUMP(status),
        )
    return ExitStatus(cause=Cause.EXITED, source=Source.KERNEL, code=os.WEXITSTATUS(status))
