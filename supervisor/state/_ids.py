"""Ids of containers and of processes; each id is the name of a directory."""

from __future__ import annotations

import re

from ..values import InvalidValue

INIT = "init"
"""The id of a container's first process, and the name of that process's directory."""

RESERVED = frozenset(
    {
        INIT,
        "bundle",
        "checkpoints",
        "cleanup",
        "lock",
        "logs",
        "overlay",
        "rootfs",
        "runs",
        "state.json",
        "upper",
        "work",
    }
)
"""Names that a container directory uses, now or later: no exec can have one as an id."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")


def is_id(name: str) -> bool:
    """Return whether ``name`` can be an id."""
    return _ID.fullmatch(name) is not None


def check_id(id: str, what: str = "container id") -> str:
    """Return ``id`` if the text can be an id.

    Raises:
        InvalidValue: ``id`` is not text of 1 to 128 of ``A-Z a-z 0-9 _ . + -`` that begins with
            a letter or a digit.
    """
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        raise InvalidValue(
            f"{what} {id!r:.200} must be 1 to 128 of A-Z a-z 0-9 _ . + - and begin with "
            "a letter or a digit"
        )
    return id


def check_exec_id(id: str) -> str:
    """Return ``id`` if an exec can have it.

    Raises:
        InvalidValue: as `check_id`, or ``id`` is one of `RESERVED`.
    """
    if check_id(id, "exec id") in RESERVED:
        raise InvalidValue(f"exec id {id!r} is a name that the container's directory uses")
    return id
