"""Runs of pytest inside a test, with the plugin, in a process of their own."""

from __future__ import annotations

import pytest

from tests.testing.inner import INI, OPTIONS, Run, with_runtime


@pytest.fixture
def inner(pytester: pytest.Pytester) -> Run:
    """Write a test file and run pytest on it: ``inner(text, "-x", ...)``."""
    pytester.makeini(INI)

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess(*OPTIONS, with_runtime(), *options, timeout=60)

    return run
