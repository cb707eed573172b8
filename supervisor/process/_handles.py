"""The descriptors by which we watch a process: of the process, the shim and ``exit``."""

from __future__ import annotations

from ..children import PidFd
from ..shim import ExitFifo, Shim


class Handles:
    """The descriptors that the task of a process holds open, and closes at the end.

    Attributes:
        exit: the ``exit`` fifo. Set by the launch or the adoption; None before, and again as soon
            as the shim has closed the fifo.
        shim: the shim. Set by the launch or the adoption; None before and after.
        process: the process. Set with the shim; None before and after, and if the pid isn't
            certain.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.exit: ExitFifo | None = None
        self.shim: Shim | None = None
        self.process: PidFd | None = None

    def watched(self) -> bool:
        """Whether the shim (by one look at ``exit``), or this supervisor, watches the process."""
        if self.exit is not None and self.exit.watched():
            return True
        return self._keep and self.process is not None and not self.process.ended()

    def close(self) -> None:
        """Close the descriptors."""
        for part in (self.exit, self.shim, self.process):
            if part is not None:
                part.close()
        self.exit = self.shim = self.process = None
