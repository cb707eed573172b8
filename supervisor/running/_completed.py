"""The result of a run: exit status, output, and the processes that still hold the output."""

from __future__ import annotations

from typing import Final

import attrs

from ..values import Cause, ExitStatus, ProcessFailed, printable

_SAID_BYTES: Final = 400


@attrs.frozen
class Holder:
    """A process that still held a stream open when the program had ended.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        pid: the process; None if the holder couldn't be found.
        program: the name of the process; None if unknown.
    """

    stream: str
    pid: int | None
    program: str | None

    def __str__(self) -> str:
        program = printable(self.program or "a process")
        return f"{self.stream}: {program} (pid {self.pid or 'unknown'})"


@attrs.frozen(kw_only=True)
class Completed:
    """The result of a run; as `subprocess.CompletedProcess`.

    Attributes:
        args: the program and the arguments.
        status: how the program ended.
        stdout: the standard output, if that was captured.
        stderr: the standard error, if that was captured.
        held: the processes that still held the output open ``deadlines.drain`` after the program
            had ended: then ``stdout`` or ``stderr`` may lack something. Empty as a rule. The search
            is short: if there are very many holders, the list has the first ones, and one whose
            ``pid`` is None.
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
        """Raise ProcessFailed unless the program exited with 0."""
        checked(self, container=None)


def checked(completed: Completed, *, container: str | None) -> Completed:
    """Return ``completed`` if the program exited with 0.

    Raises:
        ProcessFailed: the program didn't exit with 0.
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
    """Return the last part of a program's output, for the end of a message."""
    parts = []
    for name, content in (("stderr", stderr or b""), ("stdout", stdout or b"")):
        text = content[-_SAID_BYTES:].decode(errors="replace").strip()
        if text:
            cut = "..." if len(content) > _SAID_BYTES else ""
            parts.append(f"; {name}: {cut}{text}")
    return "".join(parts)


def _how(status: ExitStatus) -> str:
    if status.cause is Cause.UNKNOWN:
        return f"ended; the exit status is {status}"
    return str(status) if status.code is not None else f"was {status}"
