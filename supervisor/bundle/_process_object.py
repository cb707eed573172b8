"""Make the process object of an exec from the one of init, and the one of init from a bundle's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..spec import INIT_ARGS, behind_init
from ._arguments import check_absolute, check_args, check_env, check_total


def exec_process(
    init: Mapping[str, Any],
    *,
    args: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: Mapping[str, Any] | None = None,
    terminal: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return init's process object with the caller's arguments in place of init's.

    All else is shared with init's object: PATH, limits, no-new-privileges. A null value counts as
    missing, as for runtimes.

    Args:
        init: the process object of the container's init.
        args: the program and the program's arguments.
        env: variables, added to init's or in their place.
        cwd: absolute working directory.
        user: the ``user``, in place of init's; see `find_account`.
        terminal: the columns and rows of the terminal; None for no terminal, whatever init has.
            With a terminal, TERM is ``xterm`` unless init or ``env`` sets TERM.

    Raises:
        InvalidValue: an argument can't work.
    """
    process = {key: value for key, value in init.items() if value is not None}
    if args is not None:
        process["args"] = list(check_args(args))
    process["terminal"] = terminal is not None
    process.pop("consoleSize", None)
    if terminal is not None:
        process["consoleSize"] = {"width": terminal[0], "height": terminal[1]}
    if env is not None:
        process["env"] = merge_env(process.get("env", ()), check_env(env))
    if terminal is not None:
        process["env"] = _with_term(process.get("env", ()))
    if cwd is not None:
        process["cwd"] = check_absolute(cwd, "cwd")
    if user is not None:
        process["user"] = dict(user)
    check_total(process)
    return process


def init_process(
    process: Mapping[str, Any],
    *,
    args: Sequence[str] | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    terminal: tuple[int, int] | None,
    user: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a bundle's process object with the arguments of `Supervisor.create` in place.

    In a bundle with ``init=True`` the init stays in front of other arguments.

    Raises:
        InvalidValue: an argument can't work.
    """
    if args is not None and behind_init(process["args"]) is not None:
        args = [*INIT_ARGS, *check_args(args)]
    return exec_process(process, args=args, env=env, cwd=cwd, user=user, terminal=terminal)


def merge_env(entries: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """Return ``NAME=value`` entries with ``changes`` added or in place, in a stable order."""
    parts = [entry.partition("=") for entry in entries]
    merged = {name: value for name, _, value in parts}
    merged.update(changes)
    return [f"{name}={value}" for name, value in merged.items()]


def _with_term(entries: Sequence[str]) -> list[str]:
    """Return the variables with TERM, from which a program learns what the terminal can do.

    The output goes to the terminal of an attached client, and those understand xterm.
    """
    missing = not any(entry.startswith("TERM=") for entry in entries)
    return [*entries, *(["TERM=xterm"] if missing else [])]
