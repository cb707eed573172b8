"""What becomes of copied streams: those that go to the caller's own files."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from typing import Final

import trio

from ..shim import Control
from ..state import Copied, ProcessLayout, ProcessRecord, read_copied
from ..tasks import nap, within
from ..values import ExitStatus, StateCorrupt, StreamFailed, StreamFull, is_full

logger: Final = logging.getLogger("supervisor")

_NAMES: Final = ("stdin", "stdout", "stderr")
_POLL_SECONDS: Final = 0.01


class Delivery:
    """Whether a process's output has reached the caller's files: the shim reports in ``copied``.

    Attributes:
        asked: whether a caller will get a failure as an error: otherwise the failure is logged.
    """

    def __init__(
        self,
        layout: ProcessLayout,
        record: ProcessRecord,
        control: Control,
        *,
        drain: float,
        shim_gone: Callable[[], bool],
        container: str,
    ) -> None:
        self._layout = layout
        self._control = control
        self._drain = drain
        self._shim_gone = shim_gone
        self._container = container
        own = (layout.stdin, layout.stdout, layout.stderr)
        specs = (record.stdin, record.stdout, record.stderr)
        self._wanted = any(map(_is_copied, specs, own))
        self._copied = Copied()
        self._given_up = False
        self.asked: bool = False

    def look(self) -> None:
        """Read what the shim reports now: the file goes away with the process directory."""
        if not self._wanted or not self._control.stands():
            return
        with contextlib.suppress(StateCorrupt, OSError):
            self._copied = read_copied(self._layout.copied) or self._copied

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Return when all output of an ended process has arrived, or the rest never will.

        The rest never will if no reader took some for ``deadlines.drain``, or the shim has exited.
        """
        while self.is_late():
            moves = self._copied.moves
            with within(self._drain, still=False) as scope:
                while self.is_late() and self._copied.moves == moves:
                    await nap(_POLL_SECONDS, still=False)
            self._given_up = scope.cancelled_caught and self._copied.moves == moves

    def is_late(self) -> bool:
        """Whether readers may still take some output of an ended process."""
        gone = self._shim_gone()  # before the look: the shim's last report counts
        self.look()
        return bool(self._copied.late) and not gone and not self._given_up

    def failure(
        self,
        status: ExitStatus | None,
        *,
        stdout: bytes | None = None,
        stderr: bytes | None = None,
    ) -> StreamFailed | None:
        """Return the error for streams that failed or were given up; None if there are none."""
        told = [one for one in map(self._fault, range(len(_NAMES))) if one is not None]
        if not told:
            return None
        stream, code, _ = told[0]
        kind = StreamFull if is_full(code) else StreamFailed
        return kind(
            "; ".join(message for _, _, message in told),
            stream=stream,
            errno=code,
            status=status,
            stdout=stdout,
            stderr=stderr,
            container=self._container,
        )

    def _fault(self, number: int) -> tuple[str, int, str] | None:
        name, code = _NAMES[number], self._copied.errors[number]
        if code and name == "stdin":
            said = f"stdin couldn't be read ({os.strerror(code)}): the program saw an end of input"
            return name, code, said
        if code:
            said = f"{name} couldn't be written ({os.strerror(code)}): the rest is lost"
            return name, code, said
        if self._copied.late & 1 << number:
            said = (
                f"no reader took the rest of {name}: given up {self._drain:g} seconds after "
                "the last read (deadlines.drain), or when the shim exited"
            )
            return name, errno.ETIMEDOUT, said
        return None

    def warn(self) -> None:
        """Log a failure, unless a caller gets the error."""
        self.look()
        failure = None if self.asked else self.failure(None)
        if failure is not None:
            logger.warning("%s/%s: %s", self._container, self._layout.id, failure.message)


def _is_copied(spec: str | None, own: str) -> bool:
    kind, _, rest = (spec or "").partition(":")
    return kind in ("fd", "file") or (kind == "fifo" and rest != own)
