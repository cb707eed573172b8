"""A supervisor's own kernel settings stay with the supervisor: neither an init nor an exec inherits
them."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import PIPE, Bundle
from supervisor.spec._privileges import may_raise_limits
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import needs_root

PYTHON = "/usr/bin/python3"
_KEYCTL = 250 if platform.machine() == "x86_64" else 219
KEYRING = f"import ctypes; print(ctypes.CDLL(None).syscall({_KEYCTL}, 0, -3, 0), flush=True)"
may_lower = pytest.mark.skipif(not may_raise_limits(), reason="needs CAP_SYS_RESOURCE")
OWN = Path("/proc/self/oom_score_adj")


@contextlib.contextmanager
def oom_score(score: int) -> Iterator[None]:
    """Give ourselves that score."""
    before = OWN.read_text()
    OWN.write_text(str(score))
    try:
        yield
    finally:
        OWN.write_text(before)


def score_of(pid: int | None) -> int:
    """Return what a process has."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@needs_root
@pytest.mark.parametrize("own", [pytest.param(-300, marks=may_lower), 0, 300])
@pytest.mark.parametrize("wanted", [None, 700, -100])
async def test_oom_score(
    supervisor: OpenSupervisor, bundle: MakeBundle, own: int, wanted: int | None
) -> None:
    """An exec of crun's doesn't inherit the supervisor's score: once a supervisor at -900 handed
    that to all that it ran."""
    with oom_score(own):
        async with supervisor() as sup:
            made = bundle("sleep", "60")
            async with await sup.create("a", made, oom_score_adj=wanted) as box:
                await box.start()
                process = await box.exec(["sleep", "60"])
                given = wanted or 0 if may_raise_limits() else max(wanted or 0, own)
                assert score_of(box.pid) == given
                assert score_of(process.pid) == given
        assert int(OWN.read_text()) == own


@needs_root
async def test_oom_score_of_a_bundle_that_says_nothing(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A bundle without a score gets none of a supervisor's: a runtime then leaves the score
    unchanged."""
    made = bundle("sleep", "60")
    del made.spec["process"]["oomScoreAdj"]
    with oom_score(300):  # we were lower, so a shim may be
        async with supervisor() as sup, await sup.create("a", made) as box:
            await box.start()
            process = await box.exec(["sleep", "60"])
            assert (score_of(box.pid), score_of(process.pid)) == (0, 0)


async def test_session_keyring(supervisor: OpenSupervisor) -> None:
    """An exec of crun's has no access to the host's session keyring: once the host's keys could be
    read, and set."""
    script = f"{PYTHON} -ISc '{KEYRING}'"
    with Bundle.from_host(["sh", "-c", f"{script}; exec sleep 60"], seccomp="unconfined") as made:
        async with supervisor() as sup, await sup.create("a", made, stdout=PIPE) as box:
            await box.start()
            assert box.stdout is not None
            rings = [int(await box.stdout.receive_some())]
            for _ in range(2):
                done = await box.run([PYTHON, "-ISc", KEYRING], capture_stdout=True)
                rings.append(int(done.stdout or b""))
            ours = own_keyring()
    assert all(ring > 0 for ring in rings)
    assert ours not in rings  # one for all in the container, or for each


def own_keyring() -> int:
    """Return the number of our own session's keyring."""
    return ctypes.CDLL(None).syscall(_KEYCTL, 0, -3, 0)
