"""Under Hypothesis an example is the same each time: order, names and directories."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio
from hypothesis import Phase, given, seed
from hypothesis import strategies as st

from supervisor import Bundle, open_supervisor, run_container
from supervisor.directories._temporary import Temporary
from supervisor.testing import profile, supervised
from supervisor.testing.runtimes import HostRuntime

TASKS = 4
SEARCH = profile(database=None, max_examples=2, phases=[Phase.generate], deadline=None)


def play(
    number: int,
    example: Callable[[list[str]], None],
    drawn: st.SearchStrategy[object] = st.integers(),  # noqa: B008
) -> list[str]:
    """Run two examples with this seed, and return what they have noted."""
    noted: list[str] = []

    @seed(number)
    @SEARCH
    @given(drawn)
    @supervised
    def search(drawn: object) -> None:
        example(noted)

    search()
    return noted


async def work(noted: list[str]) -> None:
    """Make containers in several tasks at once, one create at a time, and note their order."""
    async with open_supervisor(runtime=HostRuntime().runtime, creates_at_once=1) as sup:
        noted.append(sup.root)
        bundle = Bundle.from_host(["true"])
        noted.append(bundle.path)

        async def make(name: str) -> None:
            box = await sup.create(name, bundle)
            noted.append(f"created {name}")
            await box.delete()

        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(make, f"box-{number}")
        done = await run_container(bundle, supervisor=sup, task_status=Named(noted))
        assert done.returncode == 0


class Named:
    """A task status that notes the container's name."""

    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def started(self, box: object) -> None:
        self.noted.append(repr(box).split(":")[0])


def test_the_same_seed_gives_the_same_order_and_names() -> None:
    """Twice the same seed, twice the same: arguments, roots, bundles, order of creates, ids."""
    first = play(7, lambda noted: trio.run(work, noted))
    assert first == play(7, lambda noted: trio.run(work, noted))
    assert "<supervisor.Container 'run-1'" in first
    assert len(set(first)) < len(first), "the second example has the first one's names"


def test_the_order_may_be_drawn() -> None:
    """With ``st.random_module()`` each example has an order of its own; without it all have the
    same."""
    orders = set()
    for _ in range(2):
        noted: list[str] = play(3, lambda noted: trio.run(tasks, noted), st.random_module())
        orders.add(tuple(line for line in noted if line.startswith("task")))
    assert len(orders) == 1, "the same seed"
    (order,) = orders
    assert order[:TASKS] != order[TASKS:], "the two examples drew different ones"


async def tasks(noted: list[str]) -> None:
    """Let several tasks run at once, and note their order."""

    async def note(name: str) -> None:
        noted.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(note, f"task {number}")


def test_a_directory_that_is_there_is_nobody_elses() -> None:
    """A directory that an earlier example left at the next example's name is skipped."""
    found: list[str] = []

    def example(noted: list[str]) -> None:
        made = Temporary.make()
        made.close()
        noted.append(made.path)
        found.append(made.path)

    noted = play(1, example)
    try:
        paths = [line for line in noted if line.startswith("/")]
        assert len(set(paths)) == len(paths) == 2
    finally:
        for path in found:
            os.rmdir(path)


def test_without_hypothesis_names_are_random() -> None:
    """A test without examples has no counted names: two such tests may run beside each other."""
    with Temporary.make() as one, Temporary.make() as other:
        assert one.path != other.path
