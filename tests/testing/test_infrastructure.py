"""A fault of the machine is no counter-example: it stops Hypothesis, and isn't shrunk."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import DeadlineExceeded
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from supervisor import (
    Bundle,
    CreateTimeout,
    DeadlineExpired,
    Deadlines,
    DiskFull,
    InfrastructureError,
    Runtime,
    TooManyFiles,
    open_supervisor,
    run_container,
)
from supervisor.testing import InfrastructureFailed, profile, supervised
from supervisor.testing.runtimes import Fault, FaultyRuntime, HostRuntime

GOOD_RUNS = 3
SEARCH = profile(database=None, max_examples=30, deadline=None)

FAULTS: dict[type[InfrastructureError], Callable[[], BaseException]] = {
    DiskFull: lambda: DiskFull("No space left on device"),
    TooManyFiles: lambda: TooManyFiles("Too many open files"),
    CreateTimeout: lambda: CreateTimeout("crun made no process", seconds=10),
}


def alone(error: BaseException) -> BaseException:
    """Return the error unchanged."""
    return error


def grouped(error: BaseException) -> BaseException:
    """Return the error as two nurseries would raise it."""
    inner = BaseExceptionGroup("inner", [ValueError("a follow-up"), error])
    return BaseExceptionGroup("outer", [inner])


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("shape", [alone, grouped])
@pytest.mark.parametrize("is_async", [False, True])
def test_it_stops_at_once(
    kind: type[InfrastructureError],
    shape: Callable[[BaseException], BaseException],
    is_async: bool,
) -> None:
    """The example at which the machine fails is the last one: none is repeated or shrunk."""
    runs = 0

    def body() -> None:
        nonlocal runs
        runs += 1
        if runs > GOOD_RUNS:
            raise shape(FAULTS[kind]())

    @supervised
    async def in_trio() -> None:
        body()

    @SEARCH
    @given(st.integers())
    @supervised
    def search(number: int) -> None:
        trio.run(in_trio) if is_async else body()

    with pytest.raises(InfrastructureFailed, match=kind.__name__):
        search()
    assert runs == GOOD_RUNS + 1


def test_it_stops_a_state_machine() -> None:
    """The plugin does the same for the rules of a state machine."""
    runs = 0

    class Machine(RuleBasedStateMachine):
        @rule()
        def fail(self) -> None:
            nonlocal runs
            runs += 1
            raise FAULTS[DiskFull]()

    with pytest.raises(InfrastructureFailed, match="DiskFull"):
        run_state_machine_as_test(Machine, settings=SEARCH)
    assert runs == 1


def test_a_program_that_hangs_is_a_counterexample() -> None:
    """A plain DeadlineExpired is the program's own, and is shrunk like any other failure."""
    seen: list[int] = []

    @SEARCH
    @given(st.integers(0, 1000))
    @supervised
    def search(number: int) -> None:
        seen.append(number)
        if number > 9:
            raise DeadlineExpired("the program ran longer than 1 second", seconds=1)

    with pytest.raises(DeadlineExpired):
        search()
    assert seen[-1] == 10


def test_a_runtime_that_hangs_in_create() -> None:
    """A create that makes no process in time, with a real runtime, stops the search."""
    bundle = Bundle.from_host(["true"])
    runtime = FaultyRuntime(Fault(verb="create", what="hang")).runtime
    seen: list[int] = []

    @SEARCH
    @given(st.integers())
    @supervised
    def search(number: int) -> None:
        seen.append(number)
        trio.run(run_in, bundle, runtime, Deadlines(create=0.05))

    with pytest.raises(InfrastructureFailed, match="CreateTimeout"):
        search()
    assert len(seen) == 1


async def run_in(bundle: Bundle, runtime: Runtime, deadlines: Deadlines | None = None) -> None:
    """Run a bundle under a supervisor of its own."""
    async with open_supervisor(runtime=runtime, deadlines=deadlines) as sup:
        await run_container(bundle, supervisor=sup)


@pytest.mark.parametrize("verb", ["create", "delete"])
def test_the_time_of_create_and_delete_is_not_the_examples(verb: str) -> None:
    """The time of create and delete isn't the example's: a slow runtime doesn't make an example
    late."""
    bundle = Bundle.from_host(["true"])
    runtime = FaultyRuntime(Fault(verb=verb, what="late", value=1.5)).runtime

    @profile(database=None, max_examples=1, deadline=datetime.timedelta(seconds=1.4))
    @given(st.just(0))
    @supervised
    def search(number: int) -> None:
        trio.run(run_in, bundle, runtime)

    search()


def test_the_time_of_the_program_is_the_examples() -> None:
    """The time of the program is the example's: a slow program makes the example late."""
    bundle = Bundle.from_host(["sleep", "0.3"])
    runtime = HostRuntime().runtime

    @profile(database=None, max_examples=1, deadline=datetime.timedelta(seconds=0.2))
    @given(st.just(0))
    @supervised
    def search(number: int) -> None:
        trio.run(run_in, bundle, runtime)

    with pytest.raises(DeadlineExceeded):
        search()


def test_the_profile_has_a_name() -> None:
    """Hypothesis knows the profile's name as soon as Hypothesis is imported."""
    assert repr(settings.get_profile("trio-supervisor")) == repr(profile())
