"""The fake runtime behaves as the real ones do: the same checks over all of them."""

from __future__ import annotations

import glob
import os

import pytest

from supervisor import InvalidValue
from supervisor.cgroups import Hierarchies
from supervisor.testing import leak_check
from supervisor.testing.runtimes import Ability, Fault, FaultyRuntime, HostRuntime, check_runtime
from supervisor.testing.runtimes._checks import CHECKS
from tests.support.runtimes import Choice

ISOLATION = {Ability.NAMESPACES, Ability.ROOT_FILESYSTEM, Ability.CGROUP, Ability.PRIVILEGES}


def abilities(choice: Choice) -> frozenset[Ability]:
    """Return what a runtime can do here."""
    if not choice.real:
        return HostRuntime.abilities
    cgroups = {Ability.CGROUP, Ability.PAUSE}
    return frozenset(Ability) - (set() if Hierarchies.discover().usable else cgroups)


@pytest.mark.runtimes("fake", "runc", "crun")
async def test_conforms(choice: Choice) -> None:
    """HostRuntime, runc and crun pass every check of what they claim to do, and leave nothing."""
    async with leak_check(temporary=False, cgroup_parent=None):  # others have the usual one too
        found = await check_runtime(choice.runtime(), abilities=abilities(choice))
    left = glob.glob(f"/sys/fs/cgroup/**/trio-supervisor-check-{os.getpid()}-*")
    # crun makes an ordinary directory there, and no cgroup, if version 2 isn't mounted.
    assert not [path for path in left if not path.startswith("/sys/fs/cgroup/unified/")]
    assert {*found.passed, *found.undeclared} == set(CHECKS)
    if not choice.real:
        assert set(found.undeclared.values()) == ISOLATION
    elif os.geteuid() == 0:
        assert not found.undeclared


async def test_isolation_that_is_claimed_is_missed() -> None:
    """A runtime that claims an isolation that it lacks fails the checks for that, each by name."""
    claimed = [name for name, (_, ability) in CHECKS.items() if ability in ISOLATION]
    with pytest.raises(ExceptionGroup) as caught:
        await check_runtime(HostRuntime().runtime, abilities=ISOLATION, only=claimed)
    failed = [error.check for error in caught.value.exceptions]  # type: ignore[attr-defined]
    assert failed == claimed


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        (Fault(what="garbage-pid", value="1"), "created_container_waits", "became our child"),
        (Fault(what="no-pid", verb="exec"), "exec_runs_beside", "no pid"),
        (Fault(what="mute", verb="create"), "errors_are_logged", "the runtime logged"),
        (
            Fault(what="hang", verb="delete", container="absent"),
            "delete_by_force_accepts_nothing",
            "longer than 1 seconds",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_faults_are_found(fault: Fault, check: str, said: str) -> None:
    """A runtime that misbehaves is distinguished from one that doesn't, and its fault is named."""
    faulty = FaultyRuntime(fault).runtime
    seconds = 1 if fault.what == "hang" else 30
    with pytest.raises(ExceptionGroup, match="doesn't behave") as caught:
        await check_runtime(faulty, abilities=HostRuntime.abilities, only=[check], seconds=seconds)
    assert said in str(caught.value.exceptions[0])


async def test_unknown_check() -> None:
    """A check that isn't there is refused before anything is called."""
    with pytest.raises(InvalidValue, match=r"only must be .* not 'states'"):
        await check_runtime(HostRuntime().runtime, only=["states"])
