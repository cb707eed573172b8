"""The tutorial's examples work as printed."""

from __future__ import annotations

import pytest

from tests.support.blocks import ROOT, blocks
from tests.support.runtimes import choose, needs_root
from tests.testing.inner import INI, OPTIONS


@needs_root
def test_the_tests_of_the_tutorial(pytester: pytest.Pytester) -> None:
    """The tutorial's tests, each in a file, pass."""
    if choose("crun").obstacle:
        pytest.skip(str(choose("crun").obstacle))
    shown = [block for block in blocks(ROOT / "docs/fresh-containers.md") if "test" in block.words]
    assert len(shown) == 6
    pytester.makeini(INI)
    for number, block in enumerate(shown):
        (pytester.path / f"test_{number}.py").write_text(block.text)
    (pytester.path / "conftest.py").write_text(
        "from hypothesis import settings\n"
        "from supervisor.testing import profile\n"
        "settings.register_profile('few', profile(max_examples=5, deadline=None))\n"
    )
    result = pytester.runpytest_subprocess(
        *OPTIONS, "--hypothesis-profile=few", "--supervisor-runtime=crun", timeout=100
    )
    result.assert_outcomes(passed=6)
