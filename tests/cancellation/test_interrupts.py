"""Ctrl-C at any moment: one plain KeyboardInterrupt, and everything is undone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from supervisor.directories._temporary import PLACE
from supervisor.tasks._interrupts import opening
from tests.cancellation.interrupts import KINDS
from tests.support.leaks import cgroup_left, wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.timeout(900)

FEW, MANY = 3, 300
SECONDS = 30
LATEST = 0.4


def _interrupt_once(command: list[str], place: Path, after: float) -> str:
    """Return the output of a program that is interrupted so many seconds after the beginning."""
    environment = {**os.environ, PLACE: str(place)}
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    )
    assert program.stdout is not None and program.stdout.readline() == "go\n"
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(after)
        program.send_signal(signal.SIGINT)
        said, complained = program.communicate(timeout=SECONDS)
    except BaseException:
        program.send_signal(signal.SIGABRT)  # the tracebacks are worth having
        program.wait()
        raise
    return said.strip() + complained[-2000:]


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_random_moment(
    kind: str,
    choice: Choice,
    cgroup_parent: str,
    rootfs: Path,
    workdir: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C at a random moment is one plain KeyboardInterrupt: once one in 15 was swallowed in a
    finalizer, one in 60 came in a group from a task of ours, and three in 60 left a container half
    deleted."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.cancellation.interrupts"]
    command += [kind, choice.name, cgroup_parent, str(rootfs)]
    place = workdir / "place"
    place.mkdir(0o711)
    rng = random.Random(f"{kind} {choice.name}")
    for number in range(MANY if request.config.getoption("--long") else FEW):
        after = rng.uniform(0.0, LATEST)
        assert _interrupt_once(command, place, after) == "interrupted", (number, after)
        wait_for(lambda: not list(place.iterdir()), "its directories to be removed")
        assert not cgroup_left(cgroup_parent)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_goes_on(
    kind: str,
    choice: Choice,
    cgroup_parent: str,
    rootfs: Path,
    request: pytest.FixtureRequest,
) -> None:
    """A program that goes on after 60 interrupts keeps nothing: once it kept up to 7 zombies and 13
    descriptors."""
    rounds = 60 if request.config.getoption("--long") else 6
    command = [sys.executable, "-m", "tests.cancellation.interrupts", kind, choice.name]
    told = subprocess.run(
        [*command, cgroup_parent, str(rootfs), str(rounds)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 2 * rounds,
        check=False,
    )
    assert (told.stdout, told.stderr) == ("['interrupted'] zombies 0 descriptors []\n", "")


@pytest.mark.runtimes("crun")
@pytest.mark.parametrize("kind", KINDS)
def test_at_each_line(
    kind: str,
    choice: Choice,
    cgroup_parent: str,
    rootfs: Path,
    workdir: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Ctrl-C at each line of ours leaves nothing: some hundreds of lines, or, as a rule, a few."""
    stride = 13 if request.config.getoption("--long") else 499
    place = workdir / "place"
    place.mkdir(0o711)
    command = [sys.executable, "-m", "tests.cancellation.interrupts", kind, choice.name]
    told = subprocess.run(
        [*command, cgroup_parent, str(rootfs), f"{len(kind)}:6000:{stride}"],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env={**os.environ, PLACE: str(place)},
    )
    assert (told.stdout, told.stderr) == ("['interrupted'] zombies 0 descriptors []\n", "")
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
