"""Find out how a process ended: from the shim's record, the kernel, or the owner."""

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
    """What is left of a process that no shim watches any more.

    Attributes:
        shared: what the supervisor's parts share.
        layout: the process directory.
        process: the process, if the pid is certain.
        cgroup: the container's cgroup, if everything in there may be killed: that of an init.
        lost: the status to return if none is recorded and the process can't be found.
        keep: whether a process that has lost its shim is waited for, and not killed.
    """

    shared: Shared
    layout: ProcessLayout
    process: PidFd | None
    cgroup: str | None
    lost: ExitStatus | None
    keep: bool

    async def verdict(self) -> ExitStatus:
        """Return the exit status. A process that lives is killed, or waited for (``keep``)."""
        return self.recorded() or await self._end_lost()

    async def foreign_verdict(self) -> ExitStatus:
        """Return the exit status that the owner, another supervisor, settles."""
        status = self.recorded()
        if status is None and self.keep and self.process is not None:
            await self.process.wait_ended()
        with within(self.shared.deadlines.kill):
            while status is None and os.path.lexists(self.layout.path):  # else deleted
                with contextlib.suppress(FileNotFoundError, StateCorrupt):
                    status = load(Result, self.layout.result).status
                await nap(_POLL_SECONDS)
        if status is not None:
            return status
        return self.told_by_kernel("the owner didn't record how the process ended")

    def recorded(self) -> ExitStatus | None:
        """Return the exit status that the shim recorded; None if there is none."""
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
                await self.shared.hierarchies.kill(self.cgroup)  # the process is in there
            return self.lost or unknown("the shim was lost, and the pid can't be verified")
        if self.keep:
            await self.process.wait_ended()
        self.process.kill()
        with within(self.shared.deadlines.kill):
            await self.process.wait_reaped()
        return self.told_by_kernel("the shim was lost, and the kernel reports no exit status")

    def told_by_kernel(self, otherwise: str) -> ExitStatus:
        """Return the kernel's exit status; without one, *unknown* with the reason ``otherwise``."""
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
