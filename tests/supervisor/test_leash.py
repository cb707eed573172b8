"""On the leash: whatever happens to the program, none of its containers outlives it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from supervisor.cgroups import Hierarchies
from supervisor.testing._processes import name_of
from tests.conftest import MakeBundle
from tests.support.leaks import STRANGERS, children, command, descendants, reap_strangers, wait_for
from tests.support.runtimes import Choice
from tests.support.victim import Victims

pytestmark = pytest.mark.runtimes("runc", "crun", "fake")


def remains(cgroup_parent: str, temporary: Path) -> list[str]:
    """Return what is left of a killed program: processes, cgroups, directories."""
    processes = [
        line
        for line in descendants(os.getpid()).values()
        if not line.startswith("zombie") and ("supervisor-" in line or "sleep 600" in line)
    ]
    groups = [
        entry.path
        for path in Hierarchies.discover().directories(cgroup_parent)
        if os.path.isdir(path)
        for entry in os.scandir(path)
        if entry.is_dir()
    ]
    return processes + groups + [str(path) for path in temporary.glob("trio-supervisor-*")]


@pytest.mark.parametrize("forked", [False, True])
def test_killed_program_leaves_nothing(
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    bundle: MakeBundle,
    workdir: Path,
    forked: bool,
) -> None:
    """SIGKILL of a program with an ephemeral supervisor leaves no container, shim, cgroup or
    directory, even while a forked child of the program lives on."""
    spec = bundle("sleep", "600").path
    containers = {"created": spec, "running": spec, "busy": spec}
    with victim(
        choice.runtime(),
        cgroup_parent,
        None,
        temporary=workdir,
        containers=containers,
        started=["running", "busy"],
        execs={"more": ["sleep", "600"]},
        fork=forked,
    ) as pid:
        assert remains(cgroup_parent, workdir)
        copies = [one for one in children(pid) if command(one) == command(pid)]
    assert len(copies) == forked
    wait_for(lambda: not remains(cgroup_parent, workdir), "nothing to be left")
    for copy in copies:
        os.kill(copy, signal.SIGKILL)
        os.waitpid(copy, 0)


def test_killed_with_all_its_children(
    choice: Choice, cgroup_parent: str, victim: Victims, bundle: MakeBundle, workdir: Path
) -> None:
    """A script that kills a program and its children kills the shims too, but not the keeper.

    The keeper was once a child too: the containers ran on, and couldn't be adopted.
    """
    spec = bundle("sleep", "600").path
    with victim(
        choice.runtime(),
        cgroup_parent,
        None,
        temporary=workdir,
        containers={"created": spec, "running": spec},
        started=["running"],
        # without a pid namespace only an exec's shim knows the exec
        execs={"more": ["sleep", "600"]} if choice.real else {},
    ) as pid:
        unit = [pid, *children(pid)]
        names = [name_of(one) for one in unit[1:]]
        assert names and not any(name.startswith("supervisor-keep") for name in names)
        STRANGERS.update(descendants(pid))
        for number in (signal.SIGSTOP, signal.SIGKILL):  # as if all at once
            for one in unit:
                os.kill(one, number)

    def over() -> bool:
        reap_strangers()  # with the shims gone we reap: runc waits until init is reaped
        return not remains(cgroup_parent, workdir)

    wait_for(over, "nothing to be left")


@pytest.mark.parametrize("moment_ms", [0, 1, 2, 4, 8, 16, 32, 64])
def test_killed_at_any_moment(
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    bundle: MakeBundle,
    workdir: Path,
    moment_ms: int,
) -> None:
    """SIGKILL at any moment of create, start and exec leaves nothing."""
    containers = {f"c{n}": bundle("sleep", "600").path for n in range(3)}
    with victim(
        choice.runtime(),
        cgroup_parent,
        None,
        temporary=workdir,
        containers=containers,
        started=list(containers),
        execs={"more": ["sleep", "600"]},
        say_before=True,
    ):
        end = time.monotonic() + moment_ms / 1000
        while time.monotonic() < end:
            pass
    wait_for(lambda: not remains(cgroup_parent, workdir), "nothing to be left")


def test_durable_root_with_leash(
    choice: Choice,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    workdir: Path,
    bundle: MakeBundle,
) -> None:
    """With leash=True on a durable root, the root stays and the containers go."""
    with victim(
        choice.runtime(),
        cgroup_parent,
        root,
        temporary=workdir,
        containers={"a": bundle("sleep", "600").path},
        started=["a"],
        leash=True,
    ):
        assert (root / "a").exists()
    wait_for(lambda: not remains(cgroup_parent, workdir), "nothing to be left")
    wait_for(lambda: os.listdir(root) == [".runtime"], "an empty root")
