"""Kills: of all processes in the cgroup of a container, or of the init alone."""

from __future__ import annotations

import signal

import attrs
import pytest

from supervisor import ProcessEnded, State, TooManyFiles
from supervisor.process._task import ProcessTask
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shares_host_pids, until

pytestmark = pytest.mark.rootless


@pytest.mark.runtimes("runc")
async def test_kill_when_only_init_has_gone(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A kill after the end of init still kills the other processes in the cgroup."""
    spec = shares_host_pids(bundle("sh", "-c", "sleep 600 & exit 3"))
    async with supervisor() as sup, await sup.create("a", spec) as a:
        await a.start()
        assert (await a.wait()).code == 3
        assert len(a.init._task.group.pids()) == 1
        with pytest.raises(ProcessEnded):
            a.kill()
        await until(lambda: a.init._task.group.pids() == set(), "the cgroup is empty")


@pytest.mark.runtimes("fake")
async def test_kill_without_a_cgroup(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Where no cgroups can be made, a container has none: only the init can be killed."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        a._core.record = attrs.evolve(a._core.record, cgroup=None)
        await a.start()
        a.kill()
        assert (await a.wait()).signal == signal.SIGKILL


@pytest.mark.runtimes("fake")
async def test_an_init_that_cannot_be_killed_for_now(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An init that can't be killed for now is killed by the runtime's delete."""

    def scarce(*_: object) -> None:
        raise TooManyFiles("none left")

    async with supervisor() as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with monkeypatch.context() as patch:
            patch.setattr(ProcessTask, "send_signal", scarce)
            await a.delete(force=True)
        assert a.state is State.DELETED
