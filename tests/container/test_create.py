"""Creates: their ids while they are made, and what one that fails leaves."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import trio.testing

from supervisor import ContainerExists, RuntimeFailed, State
from supervisor.observers import Observation, Point
from supervisor.state import read_pid
from supervisor.system import Lock, start_time
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import left, pid_in, until
from tests.support.descriptors import only
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


QUICK = 10.0
"""A timeout far from both extremes: what takes no time, and a deadline that must not be waited
for."""


async def test_adopting_while_it_is_made(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """`adopt` doesn't take a container that this very supervisor is making for a foreign one."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-create-after-pid-while:{gate}")
    async with supervisor(root, runtime=runtime) as sup, trio.open_nursery() as nursery:
        nursery.start_soon(sup.create, "a", bundle("true"))
        await until(lambda: read_pid(str(root / "a/init/pid")), "the process is there")
        # As if the shim had come this far, and no further.
        began = start_time(pid_in(root / "a/init"))
        (root / "a/init/starttime").write_text(f"{began}\n")
        assert await sup.adopt() == [] and list(sup) == []
        gate.unlink()
        await until(lambda: "a" in sup, "it is made")
        await sup["a"].delete()


async def test_an_id_is_taken_before_its_turn_comes(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """A second create of an id is refused at once, even before the first create has made any
    file."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-create-before-pid-while:{gate}")
    spec = bundle("true")
    async with supervisor(root, runtime=runtime, creates_at_once=1) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sup.create, "first", spec)
            await until((root / ".runtime/first/state").exists, "the runtime is at work")
            nursery.start_soon(sup.create, "a", spec)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not (root / "a").exists()
            with trio.fail_after(QUICK), pytest.raises(ContainerExists):
                await sup.create("a", spec)
            gate.unlink()
        for box in list(sup.values()):
            await box.delete()


async def test_a_name_that_is_taken_at_the_last_moment(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A create fails with *exists* if a container of that id appears just before the rename."""

    looks = iter([False])
    lexists = os.path.lexists

    def look(path: str) -> bool:
        return next(looks, True) if path == str(root / "a") else lexists(path)

    async with supervisor(root) as sup:
        (root / "a").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("supervisor.container._directories.os.path.lexists", look)
            with pytest.raises(ContainerExists):
                await sup.create("a", bundle("true"))
        (root / "a").unlink()
        assert left(root) == []


async def test_an_id_is_free_again(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A failed create may be repeated under the same id."""
    trouble = workdir / "trouble"
    trouble.touch()
    spec = bundle("true")
    async with supervisor(runtime=choice.runtime(f"fail-create-once:{trouble}")) as sup:
        with pytest.raises(RuntimeFailed):
            await sup.create("a", spec)
        async with await sup.create("a", spec) as a:
            assert a.state is State.CREATED


async def test_a_failed_create_that_has_no_descriptor_to_undo_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """A failed create without a descriptor for the clean-up raises its own error, and the container
    is listed as broken and released."""
    with contextlib.ExitStack() as scarce:

        def observe(seen: Observation) -> None:
            if seen is Point.CGROUP_REMOVED:
                scarce.enter_context(only(0))

        async with supervisor(
            root, runtime=choice.runtime("fail-create"), _observer=observe
        ) as sup:
            with pytest.raises(RuntimeFailed):
                await sup.create("a", bundle("true"))
            scarce.close()
            assert list(sup.broken) == ["a"]
            free = Lock.take(str(root / "a/lock"))
            assert free is not None
            free.release()
    async with supervisor(root) as sup:
        assert not sup.broken and left(root) == []
