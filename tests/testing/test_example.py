"""What an example keeps of its containers, as their witness."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from supervisor import Bundle, ContainerPool, Runtime
from supervisor.container import show
from supervisor.observers import Made, Read, witness
from supervisor.testing._example import MAX_CONTAINERS, MAX_OUTPUT_BYTES, Example
from tests.conftest import MakeBundle, OpenSupervisor


@contextlib.contextmanager
def looking_on() -> Iterator[Example]:
    """Let an example of ours be the witness for the time of a block."""
    example = Example()
    token = witness.set(example)
    try:
        yield example
    finally:
        witness.reset(token)


@pytest.mark.runtimes("crun", "fake")
async def test_a_pool_shows_what_was_taken(runtime: Runtime) -> None:
    """The example sees only what it took from a pool, neither those that still wait nor the next
    ones."""
    bundle = Bundle.from_host(["true"])
    with looking_on() as example:
        async with ContainerPool(bundle, size=2, runtime=runtime) as pool:
            await pool.wait_full()
            await pool.run(["echo", "mine"])
            await pool.wait_full()
    ((title, text),) = example.told()
    assert title.startswith("container pool-")
    assert "['echo', 'mine']" in text
    assert "\n  mine\n" in text


@pytest.mark.runtimes("crun", "fake")
async def test_a_quick_program_of_a_pool(runtime: Runtime) -> None:
    """A pooled program that ends before the take returns is shown with its exit status."""
    async with ContainerPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        for _ in range(20):
            with looking_on() as example:
                async with pool.take(["sh", "-c", "exit 3"]) as box:
                    await box.wait()
                ((_, text),) = example.told()
            assert "exit: exited 3" in text and "exited: stopped" in text


async def test_an_end_that_is_seen_by_the_look_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A program that ended without a turn of the loop is shown with the status and the history."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sh", "-c", "sleep 0.1; exit 3"))
        await box.start()
        time.sleep(0.5)  # noqa: ASYNC251  (the program ends, and no task of ours runs)
        with looking_on() as example:
            show(box._core)
        ((_, text),) = example.told()
        assert "exit: exited 3" in text and "exited: stopped" in text


def made(id: str) -> Made:
    """Return a container that has done nothing yet."""
    return Made(container=id, args=("x",), history=(), spec=bytes, log=bytes)


def test_the_end_of_the_output_is_kept() -> None:
    """The end of the output is kept, whether it comes in small parts or in one larger than what is
    kept."""
    example = Example()
    example.observe(made("small"))
    example.observe(made("large"))
    text = b"".join(b"%d\n" % number for number in range(5000))
    for start in range(0, len(text), 100):
        example.observe(Read("small", text[start : start + 100]))
    example.observe(Read("large", text))
    tails = [told.partition("output:")[2].partition("spec:")[0] for _, told in example.told()]
    assert tails[0] == tails[1]
    assert tails[0].rstrip().endswith("  4999")
    assert len(tails[0].replace("  ", "")) <= MAX_OUTPUT_BYTES + 2


def test_the_last_containers_are_kept() -> None:
    """Of many containers the last are kept, with their output; the newest comes first."""
    example = Example()
    for number in range(MAX_CONTAINERS + 3):
        example.observe(made(f"box-{number}"))
        example.observe(Read(f"box-{number}", b"x"))
    titles = [title for title, _ in example.told()]
    assert titles == [f"container box-{number}" for number in range(MAX_CONTAINERS + 2, 2, -1)]
    for number in range(MAX_CONTAINERS + 3):  # older ones go on writing, and so does a stranger
        example.observe(Read(f"box-{number}", b"x"))
        example.observe(Read(f"stranger-{number}", b"x"))
    assert len(example.told()) == MAX_CONTAINERS


def test_waits_that_overlap_count_once() -> None:
    """Two tasks that wait at the same time count as one wait."""
    example = Example()
    with example.waiting():
        with example.waiting():
            pass
        assert example.waited_seconds == 0, "the outer one isn't over"
    assert example.waited_seconds > 0
