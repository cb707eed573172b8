"""Ctrl-C at any moment: one plain KeyboardInterrupt, and everything is undone."""

from __future__ import annotations

import contextlib
import random
import signal
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from supervisor.tasks._interrupts import opening
from tests.cancellation.interrupts import KINDS
from tests.support.forker import Forker, Program
from tests.support.leaks import cgroup_left, wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.timeout(900)

FEW, MANY = 3, 300
SECONDS = 30
LATEST = 0.4


Run = Callable[..., AbstractContextManager[Program]]


@pytest.fixture
def place(workdir: Path) -> Path:
    """The directory for the program's temporary files."""
    place = workdir / "place"
    place.mkdir(0o711)
    return place


@pytest.fixture
def run(
    forker: Forker, kind: str, choice: Choice, cgroup_parent: str, rootfs: Path, place: Path
) -> Run:
    """Run a program that is interrupted: ``with run(rounds="6") as program: ...``."""
    told = {"kind": kind, "runtime": choice.name, "cgroup_parent": cgroup_parent}
    told["rootfs"] = str(rootfs)

    def run(**more: str) -> AbstractContextManager[Program]:
        called = "tests.cancellation.interrupts:main"
        return forker.program(called, {**told, **more}, temporary=place)

    return run


def _end_of(program: Program, seconds: float) -> tuple[str, str]:
    """Return what a program has said and complained of in the end."""
    try:
        program.wait(seconds)
    except BaseException:
        program.signal(signal.SIGABRT)  # the tracebacks are worth having
        program.wait(SECONDS)
        raise
    return program.output, program.complaints


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_random_moment(
    kind: str,
    choice: Choice,
    cgroup_parent: str,
    place: Path,
    run: Run,
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C at a random moment is one plain KeyboardInterrupt: once one in 15 was swallowed in a
    finalizer, one in 60 came in a group from a task of ours, and three in 60 left a container half
    deleted."""
    rng = random.Random(f"{kind} {choice.name}")
    for number in range(MANY if request.config.getoption("--long") else FEW):
        after = rng.uniform(0.0, LATEST)
        with run() as program:
            program.await_line("go")
            time.sleep(after)
            program.signal(signal.SIGINT)
            told = _end_of(program, SECONDS)
        assert told == ("go\ninterrupted\n", ""), (number, after)
        wait_for(lambda: not list(place.iterdir()), "its directories to be removed")
        assert not cgroup_left(cgroup_parent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_goes_on(kind: str, run: Run, request: pytest.FixtureRequest) -> None:
    """A program that goes on after 60 interrupts keeps nothing: once it kept up to 7 zombies and 13
    descriptors."""
    rounds = 60 if request.config.getoption("--long") else 6
    with run(rounds=str(rounds)) as program:
        told = _end_of(program, SECONDS + 2 * rounds)
    assert told == ("['interrupted'] zombies 0 descriptors []\n", "")


@pytest.mark.runtimes("crun")
@pytest.mark.parametrize("kind", KINDS)
def test_at_each_line(kind: str, place: Path, run: Run, request: pytest.FixtureRequest) -> None:
    """Ctrl-C at each line of ours leaves nothing: some hundreds of lines, or, as a rule, a few."""
    stride = 13 if request.config.getoption("--long") else 499
    with run(rounds=f"{len(kind)}:6000:{stride}") as program:
        told = _end_of(program, 800)
    assert told == ("['interrupted'] zombies 0 descriptors []\n", "")
    assert list(place.iterdir()) == []


async def test_a_generator_goes_in_protected_code() -> None:
    """The async generator behind a block of ours, which Trio keeps in a set, is freed in protected
    code when the block is left."""
    seen: list[weakref.ref[AsyncGenerator[None, None]]] = []

    async def block() -> AsyncIterator[None]:
        yield

    def make() -> contextlib.AbstractAsyncContextManager[None]:
        context = contextlib.asynccontextmanager(block)()
        seen.append(weakref.ref(context.gen))  # type: ignore[attr-defined]
        return context

    whole = opening(make)()
    await whole.__aenter__()
    assert seen[0]() is not None
    await whole.__aexit__(None, None, None)
    assert seen[0]() is None
