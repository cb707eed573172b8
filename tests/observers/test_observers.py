"""What observers are notified of, and in which order."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import trio

from supervisor import PIPE, State
from supervisor.observers import (
    Changed,
    Ended,
    Gone,
    Made,
    Observation,
    Observers,
    Point,
    Read,
)
from tests.conftest import MakeBundle, OpenSupervisor


def told(seen: Observation) -> str:
    """Return an observation as a few words, without the point's text."""
    match seen:
        case Point():
            return seen.name
        case Made():
            return f"{seen.container} made: {' '.join(seen.args)}"
        case Changed():
            return f"{seen.container} {seen.change.event}: {seen.change.state.value}"
        case Ended():
            return f"{seen.container} {seen.process}: {seen.status}"
        case Read():
            return f"{seen.container} wrote {seen.content!r}"
        case Gone():
            return f"{seen.container} gone{'' if seen.error is None else ', not whole'}"


def lines(seen: list[Observation]) -> list[str]:
    """Return what was observed, without the points."""
    return [told(one) for one in seen if not isinstance(one, Point)]


async def test_a_life_in_its_order(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A supervisor's observer sees each container's life in its order, each step once."""
    seen: list[Observation] = []
    async with supervisor(_observer=seen.append) as sup:
        program = bundle("sh", "-c", "echo hello; read x")
        box = await sup.create("a", program, stdin=PIPE, stdout=PIPE)
        await box.start()
        assert box.stdin is not None and box.stdout is not None
        assert await box.stdout.receive_some() == b"hello\n"
        job = await box.exec(["sh", "-c", "exit 3"])
        await job.wait()
        await box.stdin.send_all(b"\n")
        await box.wait()
        await box.delete()
    assert lines(seen) == [
        "a create: creating",
        "a made: sh -c echo hello; read x",
        "a created: created",
        "a start: starting",
        "a started: running",
        "a wrote b'hello\\n'",
        f"a {job.id}: exited 3",
        "a exited: stopped",
        "a init: exited 0",
        "a delete: deleting",
        "a deleted: deleted",
        "a gone",
    ]


async def test_the_last_end_comes_from_the_deepest(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """When the supervisor's observer sees an end, the container's state has changed already."""
    states: list[State] = []

    def observe(seen: Observation) -> None:
        if isinstance(seen, Ended):
            states.append(sup[seen.container].state)

    async with supervisor(_observer=observe) as sup:
        box = await sup.create("a", bundle("true"))
        await box.start()
        await box.wait()
    assert states == [State.STOPPED]


async def test_a_container_is_observed_apart(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """An observer of one container doesn't see another's life, and sees nothing after its block."""
    seen: list[Observation] = []
    async with supervisor() as sup:
        one = await sup.create("one", bundle("true"))
        other = await sup.create("other", bundle("true"))
        with one._core.observers.observing(Observation, seen.append):
            await one.start()
            await one.wait()
            await other.delete()
        assert [told(each) for each in seen][-2:] == ["one exited: stopped", "one init: exited 0"]
        before = len(seen)
        await one.delete()
    assert len(seen) == before and not any(told(each).startswith("other") for each in seen)


def test_observers_come_from_the_inside_out() -> None:
    """A container's observers are notified before the supervisor's, each of its own kind; one that
    leaves doesn't disturb the others."""
    seen: list[str] = []
    above = Observers()
    inside = Observers(above)
    above.add(Gone, lambda _: seen.append("above"))
    inside.add(Observation, lambda _: seen.append("first"))
    with inside.observing(Gone, lambda _: seen.append("block")):
        inside.notify(Gone("a"))
        inside.notify(Point.LOCKED)
    inside.notify(Gone("a"))
    above.notify(Gone("a"))
    assert seen == ["first", "block", "above", "first", "first", "above", "above"]


async def test_a_stream_that_is_kept_keeps_nothing_else(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A caller's stream has observers, and keeps neither the container nor the registry."""

    async def deleted() -> tuple[object, list[weakref.ref[Any]]]:
        async with supervisor() as sup:
            box = await sup.create("a", bundle("true"), stdout=PIPE)
            await box.delete()
            return box.stdout, [weakref.ref(box._core), weakref.ref(sup._registry)]

    stream, others = await deleted()
    await trio.lowlevel.checkpoint()
    gc.collect()
    assert stream is not None
    assert [other() for other in others] == [None, None]
