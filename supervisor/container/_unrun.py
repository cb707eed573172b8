"""Say why a program couldn't be run, once its runtime, or a quick end, gives reason to look.

A runtime's own words differ from its neighbour's, and what the kernel refuses after the runtime has
gone is heard by nobody: the process just exits. So the files are looked at, afterwards, as the
container has them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import trio

from ..bundle import GATE_DESTINATION
from ..process import ProcessTask
from ..rootfs import LiveTree, Obstacle, PlannedTree, obstacle
from ..runtime import CANDIDATES
from ..spec import behind_init
from ..state import process_object
from ..system import is_copy, lifted
from ..tasks import nap, within
from ..values import ExitStatus, GateFailed, RuntimeFailed, not_run
from ._core import Core

_LOOK_SECONDS: Final = 1.0
_BEGIN_SECONDS: Final = 0.25
_POLL_SECONDS: Final = 0.002
_CANNOT_RUN: Final = (126, 127)  # what supervisor-init exits with

T = TypeVar("T")


class _NoAnswer(Exception):
    """Nobody can tell."""


class Root:
    """The root directory of a living container, and its mounts, which stay while this is open."""

    def __init__(self, *fds: int) -> None:
        self._fds = list(fds)

    @property
    def closed(self) -> bool:
        """Whether there is nothing to look at."""
        return not self._fds

    def close(self) -> None:
        """Close it, unless it was taken away."""
        for fd in self._take():
            os.close(fd)

    async def ask(self, question: Callable[[str], T], *, limiter: trio.CapacityLimiter) -> T | None:
        """Ask something of it, once, in a thread: the answer, or None if there is none in time.

        ``question`` is called with its path. What a container has mounted may keep it waiting, for
        ever if the container likes: so nobody waits longer than a second.
        """
        with contextlib.suppress(_NoAnswer), within(_LOOK_SECONDS):
            return await _in_thread(lambda: self._answer(question), limiter)
        return None

    def _answer(self, question: Callable[[str], T]) -> T:
        fds = self._take()
        try:
            if not fds:  # it couldn't be opened, or whoever asked has given up
                raise _NoAnswer
            return question(f"/proc/self/fd/{fds[0]}")
        finally:
            for fd in fds:
                os.close(fd)

    def _take(self) -> list[int]:
        """Take the descriptors: only one thread gets them, and closes them."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._fds.pop(0))
        return taken


@contextlib.contextmanager
def root_of(core: Core, *, believe: bool = False) -> Iterator[Root]:
    """Open the root directory of a container's init, for the block; an empty one if it can't be.

    ``believe`` takes what the kernel shows for the container's, also where a sandbox may stand
    between them.
    """
    root = Root(*(_opened(core) if believe or _shares_kernel(core) else ()))
    try:
        yield root
    finally:
        root.close()


async def ask_root(core: Core, question: Callable[[str], T]) -> T | None:
    """Ask something of the root directory of a container that runs, as `Root.ask`.

    Just after its start it may still be the runtime, which others may not look into: crun's is so
    for an ordinary user. So it has a moment.
    """
    with within(_BEGIN_SECONDS):
        while True:
            with root_of(core, believe=True) as root:
                if not root.closed:
                    break
            await nap(_POLL_SECONDS)
    with root_of(core, believe=True) as root:
        return await root.ask(question, limiter=core.shared.lookers)


def _shares_kernel(core: Core) -> bool:
    """Whether the processes are those that the kernel shows: no sandbox stands between."""
    return os.path.basename(os.path.realpath(core.record.runtime)) in CANDIDATES


def _opened(core: Core) -> list[int]:
    fds: list[int] = []
    try:
        fds.append(lifted(os.open(f"/proc/{core.init.pid}/root", os.O_PATH | os.O_CLOEXEC)))
        # Without this, what is mounted there comes apart with the last process.
        fds.append(lifted(os.open(f"/proc/{core.init.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)))
        if core.init.handles.watched():  # so it isn't reaped, and its pid nobody else's
            return fds
    except OSError:  # not ours to see, or no descriptor is left: it isn't explained then
        pass
    for fd in fds:
        os.close(fd)
    return []


async def raise_planned(
    error: RuntimeFailed, core: Core, rootfs: str, spec: Mapping[str, Any]
) -> None:
    """Raise why a container's program couldn't be run, if that is why its create has failed."""

    def look() -> Obstacle | None:
        tree = PlannedTree(rootfs, spec.get("mounts") or ())
        mapped = bool(spec["linux"].get("uidMappings")) or os.geteuid() != 0
        return obstacle(tree, spec["process"], mapped=mapped)

    if _is_refusal(error):
        found = None
        with contextlib.suppress(_NoAnswer), within(_LOOK_SECONDS):
            found = await _in_thread(lambda: _unless_scarce(look), core.shared.lookers)
        _raise(found, core, error)


async def raise_refused(error: RuntimeFailed, core: Core, process: Mapping[str, Any]) -> None:
    """Raise why an exec's program couldn't be run, if that is why its runtime has failed."""
    if _is_refusal(error):
        with root_of(core) as root:
            _raise(await _seen(core, root, process), core, error)


async def require_run(core: Core, process: ProcessTask, root: Root) -> None:
    """Return when a process that its runtime has started runs the user's program.

    Raises:
        GateFailed: it never did, since the kernel refused it.
    """
    if process.args == (GATE_DESTINATION,) or root.closed:
        return  # our own, which tells by itself; or nobody can look
    try:
        await _require_run(core, process, root)
    except GateFailed:
        raise
    except OSError:  # no descriptor is left to look with: it runs, and isn't explained
        return


async def _require_run(core: Core, process: ProcessTask, root: Root) -> None:
    status = None if await _has_begun(core, process) else await _quick_end(process)
    if status is not None and status.code:
        _raise(await _seen(core, root, process_object(process.record)), core)
    elif behind_init(process.args) is not None and not (status and status.code == 0):
        await _require_behind_init(core, process, root)


async def _require_behind_init(core: Core, process: ProcessTask, root: Root) -> None:
    """Return if our own init, which runs, finds its program."""
    found = await _seen(core, root, process_object(process.record))
    if found is not None:
        status = await _end_within(process, core.shared.deadlines.shim)
        if status is not None and status.code in _CANNOT_RUN:
            _raise(found, core)


async def _has_begun(core: Core, process: ProcessTask) -> bool:
    """Whether it runs the user's program; mostly it does by now. False if it has ended."""
    if not process.record.exec:
        return await process.gate.has_begun(_BEGIN_SECONDS)
    runtime = core.record.runtime
    with within(_BEGIN_SECONDS):
        while process.handles.watched():
            if process.pid is None or not is_copy(process.pid, runtime):
                return not process.end.is_near()
            await nap(_POLL_SECONDS)
    return False


async def _quick_end(process: ProcessTask) -> ExitStatus | None:
    """Return how a process ended, if it has: a moment later that is settled."""
    if not process.end.is_near():
        return None
    return await _end_within(process, process.deadlines.shim)


async def _end_within(process: ProcessTask, seconds: float) -> ExitStatus | None:
    with within(seconds):
        await process.life.wait_over()
    return process.status


async def _seen(core: Core, root: Root, process: Mapping[str, Any]) -> Obstacle | None:
    mapped = core.init.record.root_uid != 0
    return await root.ask(
        lambda path: _unless_scarce(lambda: obstacle(LiveTree(path), process, mapped=mapped)),
        limiter=core.shared.lookers,
    )


async def _in_thread(function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
    try:
        return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
    except RuntimeError as error:  # there can't be one more thread
        raise _NoAnswer from error


def _unless_scarce(look: Callable[[], Obstacle | None]) -> Obstacle | None:
    """Return what is seen; nothing where there is no descriptor left to look with, say."""
    try:
        return look()
    except OSError:
        return None


def _is_refusal(error: RuntimeFailed) -> bool:
    return error.returncode is not None and error.returncode > 0


def _raise(found: Obstacle | None, core: Core, cause: RuntimeFailed | None = None) -> None:
    if found is not None:
        raise not_run(
            str(found),
            what=found.what,
            number=found.errno,
            name=found.name,
            container=core.record.id,
        ) from cause
