"""Containers under a test's clock: what the kernel does has real time, and policy has Trio's."""

from __future__ import annotations

import math
import signal
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from supervisor import (
    LOG,
    PIPE,
    ContainerPool,
    DeadlineExpired,
    Deadlines,
    Supervisor,
    run_container,
)
from supervisor.testing import leak_check
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = [pytest.mark.runtimes("runc", "crun", "fake"), pytest.mark.rootless]

ENDLESS = Deadlines(**{one.name: math.inf for one in attrs.fields(Deadlines)})
CLOCKS = {
    "jumps": lambda: MockClock(autojump_threshold=0),
    "jumps late": lambda: MockClock(autojump_threshold=0.1),
    "stands": MockClock,
}
HOUR = 3600


def run(clock: str, cgroup_parent: str, main: Callable[[], Awaitable[object]]) -> None:
    """Run ``main`` with such a clock, in a new Trio run, which leaves no zombie and nothing
    else."""
    with leak_check(temporary=False, cgroup_parent=cgroup_parent):
        trio.run(main, clock=CLOCKS[clock]())


@pytest.mark.parametrize("deadlines", [Deadlines(), ENDLESS], ids=["usual", "endless"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_lifecycle(
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    bundle: MakeBundle,
    clock: str,
    deadlines: Deadlines,
) -> None:
    """A lifecycle works under any clock; a create once failed after 0.03 seconds, as if 60 had
    passed, and each open left a zombie."""
    spec = bundle("sh", "-c", "echo hi; read line")

    async def main() -> None:
        async with supervisor(deadlines=deadlines) as sup:
            async with await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
                await box.start()
                done = await box.run(["sh", "-c", "echo inside"], capture_stdout=True)
                assert done.stdout == b"inside\n"
                assert box.stdin is not None
                await box.stdin.aclose()
                assert (await box.wait()).source.value == "shim"
                assert [one.written async for one in box.logs(follow=True)] == [b"hi\n"]
            async with ContainerPool(bundle("true"), size=2, supervisor=sup) as pool:
                await pool.wait_full()
                assert (await pool.run(["echo", "pooled"])).stdout == b"pooled\n"
                assert pool.failures == ()
            left = await sup.create("b", bundle("sleep", "600"))
            await left.start()

    run(clock, cgroup_parent, main)


@pytest.mark.runtimes("runc", "crun")
def test_policy_has_the_clocks_time(
    supervisor: OpenSupervisor, cgroup_parent: str, bundle: MakeBundle
) -> None:
    """A grace, and a deadline of the user's, pass as the clock likes."""
    deaf = bundle("sh", "-c", "trap '' TERM; while :; do sleep 0.01; done")

    async def main() -> None:
        async with supervisor() as sup, await sup.create("a", deaf) as box:
            await box.start()
            begun = trio.current_time()
            stopped = await box.stop(grace=HOUR)
            assert stopped.escalated and stopped.status.signal is signal.SIGKILL
            assert trio.current_time() - begun == pytest.approx(HOUR)
            begun = trio.current_time()
            with pytest.raises(DeadlineExpired):
                await run_container(deaf, supervisor=sup, deadline=HOUR)
            assert trio.current_time() - begun == pytest.approx(HOUR + 10)

    run("jumps", cgroup_parent, main)


@pytest.mark.runtimes("runc", "crun")
def test_a_clock_that_jumps_late(
    supervisor: OpenSupervisor, cgroup_parent: str, bundle: MakeBundle
) -> None:
    """A stop looks for a handler in real time: otherwise the clock never came to jump."""
    deaf = bundle("sleep", "600")

    async def main() -> None:
        async with supervisor() as sup, await sup.create("a", deaf) as box:
            await box.start()
            begun = trio.current_time()
            stopped = await box.stop(grace=HOUR)
            assert stopped.escalated
            assert trio.current_time() - begun == pytest.approx(HOUR, abs=30)

    run("jumps late", cgroup_parent, main)


def test_it_doesnt_jump_while_something_is_under_way(
    supervisor: OpenSupervisor, cgroup_parent: str, bundle: MakeBundle
) -> None:
    """A pool that is being filled holds the clock; an idle container doesn't."""
    spec = bundle("sleep", "600")

    async def full(sup: Supervisor) -> None:
        async with ContainerPool(spec, size=2, supervisor=sup) as pool:
            await trio.sleep(HOUR)
            assert pool.statistics().ready == 2

    async def main() -> None:
        async with supervisor() as sup:
            with trio.fail_after(1):
                box = await sup.create("a", spec)
                await box.start()
                await box.exec(["true"])
            await trio.sleep(HOUR)
            await full(sup)
            begun = trio.current_time()
            await box.delete(force=True)
            assert trio.current_time() == begun

    run("jumps", cgroup_parent, main)
