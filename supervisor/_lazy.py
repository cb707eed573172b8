"""The public names of a package, as its stub has them: each is loaded when it is first used."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from typing import Any

import lazy_loader  # type: ignore[import-untyped]

Attached = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(package: str, file: str) -> Attached:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package, by the stub beside it.

    As `lazy_loader.attach_stub`, which opens the stub in whatever encoding the locale has: under
    ``python -X warn_default_encoding -W error`` that is an error.
    """
    with open(f"{os.path.splitext(file)[0]}.pyi", encoding="utf-8") as stub:
        imports = [node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom)]
    modules = {one.name for node in imports if node.module is None for one in node.names}
    names = {node.module: [one.name for one in node.names] for node in imports if node.module}
    attached: Attached = lazy_loader.attach(package, modules, names)
    return attached
