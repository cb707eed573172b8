"""The process object of an exec, from that of its container's init."""

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
    """Return init's process object with only what the caller gives replaced; it shares the rest.

    A bare one would lose PATH, limits and no-new-privileges. What is null in it counts as missing,
    as it does for runtimes.

    Args:
        init: the process object of the container's init.
        args: the program and its arguments.
        env: variables set besides init's, or in their place.
        cwd: absolute working directory.
        user: its ``user``, in place of init's; see `find_account`.
        terminal: the columns and rows of its terminal; None for no terminal, whatever init has.
            With one, TERM is ``xterm`` where nobody has said otherwise.

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
    """Return a bundle's process object with what the caller of create gives in place of its own.

    A bundle with ``init=True`` keeps its init in front of other arguments.

    Raises:
        InvalidValue: an argument can't work.
    """
    if args is not None and behind_init(process["args"]) is not None:
        args = [*INIT_ARGS, *check_args(args)]
    return exec_process(process, args=args, env=env, cwd=cwd, user=user, terminal=terminal)


def merge_env(entries: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """Return ``NAME=value`` entries with ``changes`` set in them, in a stable order."""
    parts = [entry.partition("=") for entry in entries]
    merged = {name: value for name, _, value in parts}
    merged.update(changes)
    return [f"{name}={value}" for name, value in merged.items()]


def _with_term(entries: Sequence[str]) -> list[str]:
    """Return variables among which there is TERM: programs on a terminal look there what it can.

    What we send is taken by a terminal of whoever attaches, and those understand xterm.
    """
    missing = not any(entry.startswith("TERM=") for entry in entries)
    return [*entries, *(["TERM=xterm"] if missing else [])]
