"""The shim is killed while no supervisor is there to see it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from supervisor import Bundle, Cause, Source, State
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import assert_lost, end, pid_in, shim_of, state_of

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")
real_only = pytest.mark.runtimes("runc", "crun")


async def _leave_running(supervisor: OpenSupervisor, spec: Bundle, root: Path) -> tuple[int, int]:
    """Start a container and leave it running; return the pids of shim and process."""
    async with supervisor(root) as sup:
        a = await sup.create("a", spec)
        await a.start()
        return shim_of(root / "a/init"), pid_in(root / "a/init")


@real_only
async def test_orphan(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A process that outlived its shim is killed at adoption, and the kernel reports the exit
    status."""
    shim, pid = await _leave_running(supervisor, bundle("sleep", "60"), root)
    end(shim)
    assert state_of(pid) not in ("Z", "")
    async with supervisor(root) as sup:
        assert_lost(await sup["a"].wait(), signal=signal.SIGKILL)
        assert sup["a"].state is State.STOPPED
        await sup["a"].delete()
        await nothing_left()


async def test_both_gone(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """When shim and process are both gone, unrecorded, the exit status is unknown, with the
    reason."""
    shim, pid = await _leave_running(supervisor, bundle("sleep", "60"), root)
    end(shim, pid)
    for _ in range(2):  # a settled status stays as recorded
        async with supervisor(root) as sup:
            status = await sup["a"].wait()
            assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
            assert status.why == "shim and process are gone, and no exit status was recorded"
            assert int(status) == 255 and str(status).startswith("unknown: shim")
    async with supervisor(root) as sup:
        await sup["a"].delete()
        await nothing_left()
