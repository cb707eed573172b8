"""A container that is frozen ends like any other, within the ordinary deadlines."""

from __future__ import annotations

import signal

import pytest
import trio

from supervisor import Container, IllegalTransition, State
from supervisor.cgroups import Hierarchies
from supervisor.testing import frozen
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = pytest.mark.runtimes("runc", "crun")
SOON = 5


@pytest.fixture(autouse=True)
def _cgroups() -> None:
    if not Hierarchies.discover().usable:
        pytest.skip("cgroups can't be made here")


async def stop(box: Container) -> None:
    done = await box.stop(grace=2)
    assert (done.status.signal, done.escalated) == (signal.SIGTERM, False)


async def kill(box: Container) -> None:
    box.kill()
    assert (await box.wait()).signal == signal.SIGKILL


async def kill_init(box: Container) -> None:
    box.send_signal(signal.SIGKILL)
    await box.wait()


async def delete(box: Container) -> None:
    await box.delete(force=True)


@pytest.mark.parametrize("end", [stop, kill, kill_init, delete])
async def test_ended(supervisor: OpenSupervisor, bundle: MakeBundle, end: object) -> None:
    """A frozen container ends in time, and a stop thaws it first, so that the signal is heard: on
    cgroup version 1 even SIGKILL once waited for a thaw, and a stop took all of ``deadlines.kill``
    and then failed."""
    assert callable(end)
    async with supervisor() as sup:
        box = await sup.create("box", bundle("sleep", "600", init=True))
        await box.start()
        async with frozen(box):
            with trio.fail_after(SOON):
                await end(box)


async def test_an_exec_is_refused(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec in a frozen container is refused with a remedy: the runtime would be frozen with the
    exec."""
    async with supervisor() as sup:
        box = await sup.create("box", bundle("sleep", "600", init=True))
        await box.start()
        async with frozen(box):
            with pytest.raises(IllegalTransition, match=r"frozen.*resume"):
                await box.run(["true"])
        assert box.state is State.RUNNING
        assert (await box.run(["true"])).returncode == 0
