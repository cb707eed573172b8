"""Hostile programs: contained, bounded, and nothing of ours is seen inside."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    LOG,
    PIPE,
    Bundle,
    Cause,
    Container,
    LogFile,
    RuntimeFailed,
    Supervisor,
    open_supervisor,
)
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import needs_root

pytestmark = pytest.mark.runtimes("crun")


TEST_SECONDS = 30.0


async def _ends_in_time(sup: Supervisor, box: Container) -> None:
    with trio.fail_after(10):
        await box.delete(force=True)
    assert not sup.broken


@pytest.mark.parametrize("kind", ["pipe", "log", "terminal", "file"])
@pytest.mark.parametrize(
    "script",
    [
        "exec 0<&- 1>&- 2>&-; exit 5",
        ": > /proc/self/fd/1; : > /proc/self/fd/2; exit 5",
        "command exec 1<>/proc/self/fd/1; command exec 3<>/proc/self/fd/0; (sleep 600 &) ; exit 5",
        "chmod 0 /proc/self/fd/0 /proc/self/fd/1; chown 1:1 /proc/self/fd/1; exit 5",
    ],
    ids=["closes", "truncates", "reopens", "takes"],
)
async def test_stdio(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    kind: str,
    script: str,
    nothing_left: NothingLeft,
) -> None:
    """Whatever a program does to its streams, its exit status is known, and the container can be
    deleted."""
    (workdir / "out").touch()
    kinds: dict[str, dict[str, Any]] = {
        "pipe": {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE},
        "log": {"stdout": LOG, "stderr": LOG},
        "terminal": {"terminal": True},
        "file": {"stdout": workdir / "out", "stderr": workdir / "out"},
    }
    options = kinds[kind]
    with trio.fail_after(TEST_SECONDS):
        async with supervisor(root) as sup:
            box = await sup.create("a", bundle("sh", "-c", script), **options)
            await box.start()
            assert (await box.wait()).code == 5
            await _ends_in_time(sup, box)
            await nothing_left()


@pytest.mark.parametrize("kind", ["pipe", "log", "terminal"])
async def test_flood(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    kind: str,
    nothing_left: NothingLeft,
) -> None:
    """A program that never stops writing fills neither our memory nor, in a log, the disk; and
    another container isn't held up."""
    kinds: dict[str, dict[str, Any]] = {
        "pipe": {"stdout": PIPE},
        "log": {"stdout": LogFile(max_bytes=1 << 16, files=2)},
        "terminal": {"terminal": True},
    }
    options = kinds[kind]
    with trio.fail_after(TEST_SECONDS):
        async with supervisor(root) as sup:
            spec = bundle("sh", "-c", "while :; do cat /bin/busybox; done")
            flood = await sup.create("flood", spec, **options)
            await flood.start()
            if kind == "log":
                await until((root / "flood/logs/init.log.1").exists, "a rotation")
            async with await sup.create("calm", bundle("sh", "-c", "exit 4")) as calm:
                await calm.start()
                assert (await calm.wait()).code == 4
            written = 0
            for path in (root / "flood").rglob("*.log*"):
                with contextlib.suppress(FileNotFoundError):  # renamed just now
                    written += path.stat().st_size
            assert written < 3 << 16 and flood.status is None
            await _ends_in_time(sup, flood)
            await nothing_left()


@needs_root
async def test_fork_bomb(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A fork bomb fills its own pids limit: an exec beside it fails or runs, other containers
    aren't held up, and the whole container is deleted at once."""
    bomb = "while :; do sleep 600 & done"
    with trio.fail_after(TEST_SECONDS):
        async with supervisor(root) as sup:
            box = await sup.create("bomb", bundle("sleep", "600", pids=24))
            await box.start()
            exploding = await box.exec(["sh", "-c", bomb])
            assert (await exploding.wait()).code == 2  # a full container can't fork
            for _ in range(3):
                try:
                    await (await box.exec(["sh", "-c", ":"])).wait()
                except RuntimeFailed:
                    break
            async with await sup.create("calm", bundle("sh", "-c", "exit 4")) as calm:
                await calm.start()
                assert (await calm.wait()).code == 4
            assert box.status is None
            await _ends_in_time(sup, box)
            await nothing_left()


@needs_root
@pytest.mark.parametrize("how", ["its own", "a tmpfs"])
async def test_memory(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    how: str,
    nothing_left: NothingLeft,
) -> None:
    """A program that fills its memory limit, by itself or through a file in memory, is killed, and
    the status says so."""
    args = {
        "its own": ["sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"],
        "a tmpfs": ["dd", "if=/dev/zero", "of=/tmp/full", "bs=65536"],
    }[how]
    with trio.fail_after(TEST_SECONDS):
        async with supervisor(root) as sup:
            box = await sup.create("a", bundle(*args, memory_bytes=16 << 20))
            await box.start()
            status = await box.wait()
            assert (status.oom_killed, status.cause) == (True, Cause.OUT_OF_MEMORY)
            await box.delete()
            await nothing_left()


@pytest.mark.runtimes("crun", "runc")
@pytest.mark.parametrize("leash", [False, True], ids=["free", "leashed"])
async def test_descriptors_inside(
    bundle: MakeBundle, choice: Any, root: Path, cgroup_parent: str, leash: bool
) -> None:
    """Init and execs have the descriptors 0, 1 and 2, and nothing of ours, whatever their streams
    are."""
    kinds: dict[str, dict[str, Any]] = {
        "none": {},
        "pipes": {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE},
        "log": {"stdout": LOG, "stderr": LOG},
        "terminal": {"terminal": True},
    }
    with trio.fail_after(TEST_SECONDS):
        async with open_supervisor(
            root, runtime=choice.runtime(), cgroup_parent=cgroup_parent, leash=leash
        ) as sup:
            for kind, options in kinds.items():
                spec = bundle("sleep", "600")
                async with await sup.create(kind, spec, **options) as box:
                    await box.start()
                    await _has_three(box.pid)
                    for inner in kinds.values():
                        process = await box.exec(["sleep", "601"], **inner)
                        await _has_three(process.pid)


async def _has_three(pid: int | None) -> None:
    """Fail unless a process, once it runs the program, has its standard streams and no more."""
    comm = Path(f"/proc/{pid}/comm")
    await until(lambda: comm.read_text() == "sleep\n", "the program")
    assert sorted(os.listdir(f"/proc/{pid}/fd"), key=int) == ["0", "1", "2"]


RENAMED = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"\\xff\\xfe\\x80", 0, 0, 0)
print("renamed", flush=True)
time.sleep(600)
"""


async def test_a_name_that_is_no_text(supervisor: OpenSupervisor, root: Path) -> None:
    """A program with a name that isn't text harms nothing: once each exec failed, and the root
    couldn't be opened."""
    with Bundle.from_host(["/usr/bin/python3", "-ISc", RENAMED]) as made:
        async with supervisor(root) as sup:
            box = await sup.create("a", made, stdout=PIPE)
            await box.start()
            assert box.stdout is not None
            assert await box.stdout.receive_some() == b"renamed\n"
            assert (await box.run(["true"])).status.code == 0
            await box.exec(["sleep", "600"], id="job")
            await sup.create("b", made)
        async with supervisor(root) as sup:
            assert sorted(sup) == ["a", "b"] and not sup.broken
            for box in list(sup.values()):
                await box.delete(force=True)
