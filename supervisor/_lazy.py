"""Lazy public names: each name of a package's stub is loaded at the first use."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from typing import Any

import lazy_loader  # type: ignore[import-untyped]

Attached = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(package: str, file: str) -> Attached:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package, from the package's stub.

    This replaces `lazy_loader.attach_stub`, which opens the stub in the locale's encoding: that
    is an error under ``python -X warn_default_encoding -W error``.
    """
    with open(f"{os.path.splitext(file)[0]}.pyi", encoding="utf-8") as stub:
        imports = [node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom)]
    modules = {one.name for node in imports if node.module is None for one in node.names}
    names = {node.module: [one.name for one in node.names] for node in imports if node.module}
    attached: Attached = lazy_loader.attach(package, modules, names)
    return attached
