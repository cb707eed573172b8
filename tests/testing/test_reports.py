"""A failed test reports what its containers did; Hypothesis, what those of the reported example
did."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.testing.inner import Run

PLAIN = '''
import trio
from supervisor import LOG, PIPE, Bundle, open_supervisor

async def test_fixture(supervisor, host_bundle):
    """A pipe that the test reads, and the plugin's supervisor."""
    async with await supervisor.create(
        "piped", host_bundle, args=["sh", "-c", "echo spoken; exit 3"], stdout=PIPE
    ) as box:
        await box.start()
        async for _ in box.stdout:
            pass
        assert (await box.wait()).code == 0

def test_no_fixture(supervisor_runtime):
    """A log, and everything made in the test's body."""
    async def body():
        async with open_supervisor(runtime=supervisor_runtime) as sup:
            bundle = Bundle.from_host(["sh", "-c", "echo written; exit 4"])
            async with await sup.create("logged", bundle, stdout=LOG) as box:
                await box.start()
                assert (await box.wait()).code == 0
    trio.run(body)

async def test_pool(container_pool):
    await container_pool.run(["sh", "-c", "echo pooled; exit 5"])

def test_good(container_pool):
    container_pool.run_sync(["sh", "-c", "echo silent"])
'''


def test_a_failed_test_tells_of_its_containers(inner: Run) -> None:
    """The report of a failed test has its containers' output tail, exit status, history and spec; a
    good test has nothing."""
    result = inner(PLAIN, "-rf", "-v")
    result.assert_outcomes(failed=3, passed=1)
    for name, output, code in (
        ("piped", "spoken", 3),
        ("logged", "written", 4),
        ("pool-*", "pooled", 5),
    ):
        result.stdout.fnmatch_lines(
            [
                f"*--- container {name} ---*",
                f"args: ?'sh', '-c', 'echo {output}; exit {code}'?",
                f"exit: exited {code}",
                "history:",
                "*create: creating",
                "*start: starting",
                "*exited: stopped",
                "output:",
                f"  {output}",
                "spec:",
                '  process: {*"args": *',
            ]
        )
    result.stdout.no_fnmatch_line("*silent*")


SEVERAL = """
async def test_several(supervisor, host_bundle):
    print("captured")
    for name, code in (("one", 0), ("two", 2), ("three", 3), ("four", 0)):
        async with await supervisor.create(
            name, host_bundle, args=["sh", "-c", f"exit {code}"]
        ) as box:
            await box.start()
            await box.wait()
    assert False

from hypothesis import given, strategies as st

ran = []

@given(st.integers())
def test_flaky(container_pool, number):
    first = not ran
    ran.append(number)
    container_pool.run_sync(["sh", "-c", f"echo {'first' if first else 'again'}"])
    assert not first
"""


def test_what_failed_stands_first(inner: Run) -> None:
    """The report begins with containers that failed, then others, then what was captured. No spec
    without ``-v``.

    The last example that Hypothesis ran may be a good one: once it was reported in place of the
    bad.
    """
    result = inner(SEVERAL)
    result.assert_outcomes(failed=2)
    titles = [line.strip("- ") for line in result.outlines if re.match("-+ (cont|Capt)", line)]
    several = [title for title in titles if "pool-" not in title]
    assert several == [
        *(f"container {name}" for name in ("three", "two", "four", "one")),
        "Captured stdout call",
    ]
    result.stdout.fnmatch_lines(["spec: with -v"])
    result.stdout.no_fnmatch_line("*ociVersion*")
    result.stdout.fnmatch_lines(["*container pool-*", "output:", "  first"])
    result.stdout.no_fnmatch_line("  again")


SEARCHES = """
import trio
from hypothesis import Phase, given, settings, strategies as st
from supervisor import open_supervisor, run_container

SCRIPT = ["sh", "-c", "echo got $0; exit $(( $0 > 6 ))"]
few = settings(
    database=None, deadline=None, max_examples=20, phases=[Phase.generate, Phase.shrink]
)

@few
@given(number=st.integers(0, 9))
async def test_async(supervisor_runtime, host_bundle, number):
    async with open_supervisor(runtime=supervisor_runtime) as sup:
        await run_container(
            host_bundle, supervisor=sup, args=[*SCRIPT, str(number)], capture_stdout=True
        )

@few
@given(number=st.integers(0, 9))
def test_pool(container_pool, number):
    container_pool.run_sync([*SCRIPT, str(number)])
"""


@pytest.mark.parametrize("ci", ["", "true"], ids=["terminal", "CI"])
def test_the_reported_example_tells_of_its_containers(
    inner: Run, monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    """Only the shrunk example's containers are reported, and once, in Hypothesis's notes; names
    count from 1."""
    monkeypatch.setenv("CI", ci)  # there pytest's summary has the errors whole, notes and all
    result = inner(SEARCHES)
    result.assert_outcomes(failed=2)
    report = itertools.takewhile(lambda line: "short test summary" not in line, result.outlines)
    errors = [line for line in report if re.search(r"exit: |Error:|Failed:|Group:", line)]
    assert sum("exit: exited 1" in line for line in errors) == 2, errors
    for name in ("run-1", "pool-*"):
        result.stdout.fnmatch_lines(
            ["*number=7,", f"*container {name}", "*exit: exited 1", "*exited: stopped", "*  got 7"]
        )
    result.stdout.no_fnmatch_line("*--- container *")


def test_a_runtime_that_is_named(inner: Run) -> None:
    """The option names the runtime of the fixtures; one that can't run is an error that says so."""
    result = inner("def test_it(supervisor_runtime): pass", "--supervisor-runtime=/no/such")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*RuntimeNotFound*/no/such*"])
