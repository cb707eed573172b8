"""Runs of pytest inside a test, with the plugin, in a process of their own."""

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


@pytest.fixture
def inner(pytester: pytest.Pytester) -> Run:
    """Write a test file and run pytest on it: ``inner(text, "-x", ...)``."""
    pytester.makeini(INI)

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess(*OPTIONS, with_runtime(), *options, timeout=60)

    return run
