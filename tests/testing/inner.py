"""How the tests run pytest inside of a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.runtimes import choose

Run = Callable[..., pytest.RunResult]


INI = """
[pytest]
trio_mode = true
filterwarnings =
    error
    ignore:Module already imported:pytest.PytestAssertRewriteWarning
"""


OPTIONS = (
    "-p",
    "no:cacheprovider",
    "--hypothesis-profile=trio-supervisor",
    "--supervisor-pool-size=1",
)


def with_runtime() -> str:
    """Return the option for crun, which is the quickest, or for no runtime."""
    return f"--supervisor-runtime={'host' if choose('crun').obstacle else 'crun'}"
