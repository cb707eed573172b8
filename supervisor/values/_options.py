"""Checks for keyword arguments that a TypedDict describes (PEP 692)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require_known(options: Mapping[str, Any], kind: type[Any], function: str) -> None:
    """Refuse an unknown keyword argument, with Python's own message.

    Args:
        options: the keyword arguments that the function got.
        kind: the TypedDict of the known ones.
        function: the function's name, for the message.

    Raises:
        TypeError: an argument is unknown; the message names the argument.
    """
    for name in options:
        if name not in kind.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def picked(options: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return the arguments that the TypedDict ``kind`` has, too."""
    return {name: value for name, value in options.items() if name in kind.__annotations__}
