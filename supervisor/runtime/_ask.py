"""Ask the runtime for a container's state (OCI runtime spec, "Query State")."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from ..values import RuntimeFailed
from ._call import call
from ._command import Caller

_LAST_ERRORS = 3
_TAIL_BYTES = 64 * 1024


async def ask_status(
    caller: Caller,
    container: str,
    *,
    seconds: float,
    inherit: Sequence[int] = (),
    tether: str | None = None,
) -> str | None:
    """Return ``creating``, ``created``, ``running``, ``paused`` or ``stopped``.

    Returns:
        None if the runtime doesn't know the container, or says something else.

    Raises:
        RuntimeTimeout: it didn't answer in time.
        RuntimeNotFound: it isn't there any more.
        TooManyFiles, TooManyProcesses, OSError: it can't be called just now.

    Cancellation: as `call`.
    """
    return await _ask(caller, container, "status", seconds, inherit, tether)


async def ask_bundle(
    caller: Caller,
    container: str,
    *,
    seconds: float,
    inherit: Sequence[int] = (),
    tether: str | None = None,
) -> str | None:
    """Return the path of the bundle that a container was made from.

    Returns, Raises, Cancellation: as `ask_status`.
    """
    return await _ask(caller, container, "bundle", seconds, inherit, tether)


async def _ask(
    caller: Caller,
    container: str,
    key: str,
    seconds: float,
    inherit: Sequence[int],
    tether: str | None,
) -> str | None:
    command = caller.state(container)
    try:
        answer = await call(
            command,
            seconds=seconds,
            container=container,
            inherit=inherit,
            tether=tether,
            done=lambda output: _told(output, key) is not None,
        )
    except RuntimeFailed:
        return None
    return _told(answer, key)


def _told(answer: bytes, key: str) -> str | None:
    try:
        told = json.loads(answer)[key]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return told if isinstance(told, str) else None


def criu_said(work: str) -> str:
    """Return the last errors in the logs that CRIU left in its work directory, or ""."""
    errors: list[str] = []
    for name in ("dump.log", "restore.log"):
        try:
            with open(os.path.join(work, name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
            errors += [line.strip() for line in lines if "Error" in line]
        except OSError:
            continue
    return "; ".join(errors[-_LAST_ERRORS:])
