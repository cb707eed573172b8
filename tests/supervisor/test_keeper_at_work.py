"""A keeper with work to do when the supervisor is closed: slow, killed, or after a crash."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import Bundle, Deadlines, Runtime, Supervisor, _leash, open_supervisor
from supervisor.cgroups import Hierarchies
from supervisor.directories._temporary import PLACE
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import known
from tests.support.leaks import children, wait_for
from tests.support.runtimes import Choice

HASTY = Deadlines(cleanup=0.3, call=1, kill=1)


@pytest.fixture
def place(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ephemeral roots lie."""
    path = workdir / "place"
    path.mkdir()
    monkeypatch.setenv(PLACE, str(path))
    return path


Wrap = Callable[[str], Runtime]


@pytest.fixture
def wrap(choice: Choice, workdir: Path) -> Wrap:
    """Return a runtime whose delete does something else, always or as long as ``switch`` is
    there."""
    if not choice.real:
        pytest.skip("needs a runtime's program")

    def wrapped(instead: str) -> Runtime:
        runtime = choice.runtime()
        path = workdir / os.path.basename(runtime.path)
        (workdir / "switch").touch()
        switched = f'[ "$a" = delete ] && [ -e {workdir}/switch ] && {instead}'
        path.write_text(f'#!/bin/sh\nfor a; do {switched}; done\nexec {runtime.path} "$@"\n')
        path.chmod(0o755)
        return attrs.evolve(runtime, path=str(path))

    return wrapped


def keepers(before: dict[int, str] | list[int]) -> list[int]:
    """Return the pids of keepers that are new."""
    return [
        pid
        for pid in set(children(os.getpid())) - set(before)
        if Path(f"/proc/{pid}/comm").read_text().startswith("supervisor-keep")
    ]


def cgroups(parent: str) -> list[str]:
    """Return the paths of containers' cgroups."""
    directories = filter(os.path.isdir, Hierarchies.discover().directories(parent))
    return [entry.path for path in directories for entry in os.scandir(path) if entry.is_dir()]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process from getting on."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_one_that_is_given_up(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    wrap: Wrap,
    place: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cgroup_parent: str,
) -> None:
    """The root of a keeper that is given up stays, with the lists that the keeper still needs, and
    what is left is named.

    Once the lists were removed with the root, and 36 cgroups stayed for good, without a message.
    """
    monkeypatch.setattr(_leash, "_KEEPER_SECONDS", 0.2)
    before = children(os.getpid())
    with contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING, "supervisor"):
        async with supervisor(runtime=wrap("exec sleep 100"), deadlines=HASTY) as sup:
            for id in ("a", "b"):
                await (await sup.create(id, bundle("sleep", "60"))).start()
            stack.enter_context(stopped(*keepers(before)))
        [told] = [one for one in caplog.messages if "still at work" in one]
        assert all(f"container '{id}': " in told and f"{sup.root}/{id}" in told for id in "ab")
        groups = cgroups(cgroup_parent)
        assert all(path in told for path in groups)
        assert {"a", "b"} <= set(os.listdir(sup.root))
        (workdir / "switch").unlink()
    wait_for(lambda: os.listdir(place) == [], "the keeper")
    wait_for(lambda: children(os.getpid()) == before, "its end")


@pytest.mark.parametrize("durable", [False, True])
async def test_one_that_is_killed(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    wrap: Wrap,
    place: Path,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    durable: bool,
) -> None:
    """Another keeper does the work of a killed one: it removes what a failing runtime has left, and
    the runtime's state."""
    before = children(os.getpid())
    runtime = wrap("exit 1")
    options = {"runtime": runtime, "deadlines": HASTY, "leash": True}
    async with supervisor(root if durable else None, **options) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        os.kill(*keepers(before), signal.SIGKILL)
    assert os.listdir(place) == [] and children(os.getpid()) == before
    assert not [one for one in caplog.messages if "not all could be removed" in one]
    if durable:
        assert known(root / ".runtime") == [] and os.listdir(root) == [".runtime"]
        async with supervisor(root) as sup, await sup.create("a", bundle("true")) as box:
            await box.start()


async def test_a_bundle_of_a_living_program(
    supervisor: OpenSupervisor, rootfs: Path, wrap: Wrap, place: Path
) -> None:
    """A keeper that cleans up leaves the bundle of a living program: once it was removed while in
    use."""
    bundle = Bundle.from_rootfs(rootfs, ["sleep", "60"])
    async with supervisor(runtime=wrap("exit 1"), deadlines=HASTY) as sup:
        await (await sup.create("a", bundle)).start()
    assert os.path.isdir(bundle.path)
    async with supervisor() as sup, await sup.create("a", bundle, args=["true"]) as box:
        await box.start()
        assert (await box.wait()).code == 0
    bundle.close()


def test_a_crash_of_the_loop(
    choice: Choice, bundle: MakeBundle, cgroup_parent: str, place: Path
) -> None:
    """After a crash of Trio's loop, which gives all tasks up and leaves no block, the keeper
    removes everything."""
    before = children(os.getpid())
    seen: list[Supervisor] = []

    def crash() -> None:
        raise RuntimeError("a bug in the loop")

    async def main() -> None:
        async with open_supervisor(runtime=choice.runtime(), cgroup_parent=cgroup_parent) as sup:
            seen.append(sup)
            await (await sup.create("a", bundle("sleep", "60"))).start()
            trio.lowlevel.current_trio_token().run_sync_soon(crash)
            await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    gc.collect()
    wait_for(lambda: os.listdir(place) == [], "the keeper")
    assert cgroups(cgroup_parent) == []
    for pid in set(children(os.getpid())) - set(before):
        os.waitpid(pid, 0)
