"""Keyword arguments that several functions take: each set of them is a TypedDict (PEP 692)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require_known(options: Mapping[str, Any], kind: type[Any], function: str) -> None:
    """Refuse a keyword argument that a function doesn't have, in Python's own words.

    Args:
        options: what the function was given.
        kind: the TypedDict of what it takes.
        function: its name.

    Raises:
        TypeError: names the argument.
    """
    for name in options:
        if name not in kind.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def picked(options: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return those of the arguments that another TypedDict has as well."""
    return {name: value for name, value in options.items() if name in kind.__annotations__}
