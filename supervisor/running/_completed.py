"""What a program that was run has left: its status, its output, and who still holds that."""

from __future__ import annotations

from typing import Final

import attrs

from ..values import Cause, ExitStatus, ProcessFailed, printable

_SAID_BYTES: Final = 400


@attrs.frozen
class Holder:
    """Somebody who still held a stream open when the process itself had ended.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        pid: a process that holds it; None if none could be found.
        program: its name.
    """

    stream: str
    pid: int | None
    program: str | None

    def __str__(self) -> str:
        program = printable(self.program or "somebody")
        return f"{self.stream}: {program} (pid {self.pid or 'unknown'})"


@attrs.frozen(kw_only=True)
class Completed:
    """What a program that was run has left; as `subprocess.CompletedProcess`.

    Attributes:
        args: the program and its arguments.
        status: how it ended.
        stdout: its output, if that was captured.
        stderr: its errors, if they were captured.
        held: who still held its output open ``deadlines.drain`` after its end, so that
            ``stdout`` or ``stderr`` may not be all; empty as a rule. Of very many only the first
            that were found in a moment, and one whose ``pid`` is None.
    """

    args: tuple[str, ...]
    status: ExitStatus
    stdout: bytes | None
    stderr: bytes | None
    held: tuple[Holder, ...] = ()

    @property
    def returncode(self) -> int:
        """As `Process.returncode`."""
        return self.status.returncode

    def check_returncode(self) -> None:
        """Raise ProcessFailed if the program did anything but exit with 0."""
        checked(self, container=None)


def checked(completed: Completed, *, container: str | None) -> Completed:
    """Return it if the program exited with 0.

    Raises:
        ProcessFailed: it didn't.
    """
    if completed.status.code == 0:
        return completed
    told = said(completed.stdout, completed.stderr)
    raise ProcessFailed(
        f"the program {_how(completed.status)}{told}",
        command=completed.args,
        status=completed.status,
        stdout=completed.stdout,
        stderr=completed.stderr,
        container=container,
    )


def said(stdout: bytes | None, stderr: bytes | None) -> str:
    """Return the last of what a program has put out, for the end of a message."""
    parts = []
    for name, content in (("stderr", stderr or b""), ("stdout", stdout or b"")):
        text = content[-_SAID_BYTES:].decode(errors="replace").strip()
        if text:
            cut = "..." if len(content) > _SAID_BYTES else ""
            parts.append(f"; {name}: {cut}{text}")
    return "".join(parts)


def _how(status: ExitStatus) -> str:
    if status.cause is Cause.UNKNOWN:
        return f"ended, and how is {status}"
    return str(status) if status.code is not None else f"was {status}"
