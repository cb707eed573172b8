"""Waiting, looking at containers and processes, and making runtimes that go away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

from supervisor import Bundle, Cause, Container, ExitStatus, Process, Source, Supervisor
from supervisor.cgroups import Hierarchies
from supervisor.children._pidfd import PidFd
from supervisor.state import read_pid, read_shim
from supervisor.testing._processes import state_of
from supervisor.testing.runtimes import HostRuntime
from tests.support import leaks
from tests.support.runtimes import Choice

SOON = 0.4
"""The deadline, in seconds, of an operation that hangs for ever; what must succeed gets more."""


async def until(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    seconds: float = leaks.PATIENCE_SECONDS,
) -> None:
    """Return when ``condition`` holds; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for: {what if isinstance(what, str) else what()}")
        await trio.sleep(0.002)


@contextlib.contextmanager
def hurried(one: Supervisor | Container, **seconds: float) -> Iterator[None]:
    """Give what is done in the block shorter deadlines; what comes before and after has time."""
    place: Any = one if isinstance(one, Supervisor) else one._core
    name = "_shared" if isinstance(one, Supervisor) else "shared"
    shared = getattr(place, name)
    deadlines = attrs.evolve(shared.deadlines, **seconds)
    setattr(place, name, attrs.evolve(shared, deadlines=deadlines))
    try:
        yield
    finally:
        setattr(place, name, shared)


def left(root: Path) -> list[str]:
    """Return what is left below a root, that runtimes and supervisors should have removed."""
    if not root.exists():
        return []
    runtimes = root / ".runtime"
    ids = [f".runtime/{name}" for name in known(runtimes)] if runtimes.exists() else []
    return ids + [name for name in os.listdir(root) if name != ".runtime"]


def cgroups_of(parent: str) -> list[str]:
    """Return the cgroups that exist below a parent."""
    places = Hierarchies.discover().remains(parent)
    return [entry.path for place in places for entry in os.scandir(place) if entry.is_dir()]


def living(pid: int) -> set[int]:
    """Return the descendants of a process that haven't ended."""
    return {child for child in leaks.descendants(pid) if state_of(child) not in ("Z", "")}


def commands(pid: int) -> list[str]:
    """Return the names of the descendants of a process."""
    found = []
    for child in leaks.descendants(pid):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{child}/comm").read_text().rstrip("\n"))
    return found


def shim_of(directory: Path) -> int:
    """Return the pid of the shim that works in a process directory."""
    told = read_shim(str(directory / "shim"))
    assert told is not None
    return told[0]


def pid_in(directory: Path) -> int:
    """Return the pid of the process of a process directory."""
    told = read_pid(str(directory / "pid"))
    assert told is not None
    return told


def assert_lost(status: ExitStatus, *, signal: int | None = None, code: int | None = None) -> None:
    """Check that an end that no shim recorded is the kernel's true word, or unknown."""
    if kernel_tells():
        assert (status.source, status.signal, status.code) == (Source.KERNEL, signal, code)
    else:
        assert (status.source, status.cause) == (Source.INFERENCE, Cause.UNKNOWN)
        assert status.why is not None and "kernel" in status.why


async def read_all(process: Process) -> bytes:
    """Return all that a process writes to standard output."""
    assert process.stdout is not None
    return b"".join([chunk async for chunk in process.stdout])


def end(*pids: int) -> None:
    """Kill children of ours, also such as were left to us, and reap them."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def reap(*pids: int) -> None:
    """Reap processes that have ended, and that the library couldn't know as our children.

    Such a process may become our child only later, when its parent ends too.
    """
    for pid in pids:
        await until(lambda pid=pid: _is_reaped(pid), f"{pid} has ended")  # type: ignore[misc]


def _is_reaped(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return state_of(pid) == ""


def lingering(choice: Choice, path: Path, verb: str, gate: Path) -> Path:
    """Make a runtime that does the work, and then doesn't return while ``gate`` exists."""
    found = shutil.which(choice.name)
    path.write_text(
        f'#!/bin/sh\n{found} "$@"\nstatus=$?\n'
        f'case "$*" in *" {verb} "*) while [ -e {gate} ]; do sleep 0.01; done;; esac\n'
        "exit $status\n"
    )
    path.chmod(0o755)
    return path


def movable(choice: Choice, path: Path) -> Path:
    """Make a runtime at ``path``, so that a test can take the file away."""
    if choice.real:
        found = shutil.which(choice.name)
        assert found is not None
        path.symlink_to(found)
    else:
        host = HostRuntime().runtime
        path.write_text(f'#!/bin/sh\nexec {host.path} {" ".join(host.args)} "$@"\n')
        path.chmod(0o755)
    return path


def with_hook(bundle: Bundle, when: str, *args: str) -> Bundle:
    """Return the same bundle with a hook: how a real runtime is made to fail or to hang."""
    config = Path(bundle.path) / "config.json"
    spec = json.loads(config.read_text())
    program = shutil.which(args[0])
    spec["hooks"] = {when: [{"path": program, "args": list(args)}]}
    config.write_text(json.dumps(spec))
    return Bundle.load(bundle.path)


def kernel_tells() -> bool:
    """Whether this kernel tells how a process ended that isn't our child (Linux 6.15)."""
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    process = PidFd(pid, os.pidfd_open(pid))
    try:
        os.waitpid(pid, 0)
        return process.wait_status() == 7 << 8
    finally:
        process.close()


def known(runtime_root: Path) -> list[str]:
    """Return the ids that a runtime knows; newer crun also has a hidden directory of its own
    there."""
    return [name for name in os.listdir(runtime_root) if not name.startswith(".")]


def shares_host_pids(spec: Bundle) -> Bundle:
    """Rewrite a bundle to have no pid namespace."""
    config = Path(spec.path) / "config.json"
    content = json.loads(config.read_text())
    namespaces = content["linux"]["namespaces"]
    content["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "pid"]
    config.write_text(json.dumps(content))
    return Bundle.load(spec.path)
