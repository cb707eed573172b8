"""The reason why a program couldn't be run, found after the runtime failed or the program ended.

Each runtime reports such a failure in other words. If the kernel refuses the program after the
runtime has exited, there is no report at all: the process just exits. So this module looks at the
files afterwards, as the container sees them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import trio

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
    """The question can't be answered."""


class Root:
    """The root directory of a living container; the mounts stay while this object is open."""

    def __init__(self, *fds: int) -> None:
        self._fds = list(fds)

    @property
    def closed(self) -> bool:
        """Whether there is nothing to look at."""
        return not self._fds

    def close(self) -> None:
        """Close the descriptors, unless a thread has taken them."""
        for fd in self._take():
            os.close(fd)

    async def ask(self, question: Callable[[str], T], *, limiter: trio.CapacityLimiter) -> T | None:
        """Ask one question, in a thread; return the answer, or None without an answer in time.

        ``question`` is called with the root's path. A filesystem that the container has mounted may
        block the thread for ever: so this waits for one second at most.
        """
        with contextlib.suppress(_NoAnswer), within(_LOOK_SECONDS):
            return await _in_thread(lambda: self._answer(question), limiter)
        return None

    def _answer(self, question: Callable[[str], T]) -> T:
        fds = self._take()
        try:
            if not fds:  # the root couldn't be opened, or the caller has given up
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
    """Open the root directory of a container's init for the block; an empty `Root` on failure.

    ``believe`` takes the root that the kernel shows for the container's, also where a sandbox may
    stand in between.
    """
    root = Root(*(_opened(core) if believe or _shares_kernel(core) else ()))
    try:
        yield root
    finally:
        root.close()


async def ask_root(core: Core, question: Callable[[str], T]) -> T | None:
    """Ask a question about the root directory of a running container, as `Root.ask`.

    Just after the start, init may still be the runtime's program, which an ordinary user may not
    look into (crun). So this tries for a moment.
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
    seen = f"/proc/{core.init.pid}"
    try:
        fds.append(lifted(os.open(f"{seen}/root", os.O_PATH | os.O_CLOEXEC)))
        # Without this descriptor, the mounts end with the last process.
        fds.append(lifted(os.open(f"{seen}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)))
        if core.init.handles.watched():  # so init isn't reaped, and the pid is still init's
            return fds
    except OSError:  # no permission, or no descriptor left: then there is no explanation
        pass
    for fd in fds:
        os.close(fd)
    return []


async def raise_planned(
    error: RuntimeFailed, core: Core, rootfs: str, spec: Mapping[str, Any]
) -> None:
    """Raise the reason why the program couldn't be run, if this is why the create failed."""

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
    """Raise the reason why an exec's program couldn't be run, if this is why the runtime failed."""
    if _is_refusal(error):
        with root_of(core) as root:
            _raise(await _seen(core, root, process), core, error)


async def require_run(core: Core, process: ProcessTask, root: Root) -> None:
    """Return when a process that the runtime has started runs the user's program.

    Raises:
        GateFailed: the kernel refused the program.
    """
    if root.closed:
        return
    try:
        await _require_run(core, process, root)
    except GateFailed:
        raise
    except OSError:  # no descriptor is left to look with: a failure stays unexplained
        return


async def _require_run(core: Core, process: ProcessTask, root: Root) -> None:
    status = None if await _has_begun(core, process) else await _quick_end(process)
    if status is not None and status.code:
        _raise(await _seen(core, root, process_object(process.record)), core)
    elif behind_init(process.args) is not None and not (status and status.code == 0):
        await _require_behind_init(core, process, root)


async def _require_behind_init(core: Core, process: ProcessTask, root: Root) -> None:
    """Raise the reason if our own init runs, but couldn't run the program."""
    found = await _seen(core, root, process_object(process.record))
    if found is not None:
        status = await _end_within(process, core.shared.deadlines.shim)
        if status is not None and status.code in _CANNOT_RUN:
            _raise(found, core)


async def _has_begun(core: Core, process: ProcessTask) -> bool:
    """Whether a process runs the user's program, as is usual by now; False if it has ended."""
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
    """Return the exit status of a process that has ended; the status is settled soon after."""
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
    """Return the obstacle that is seen; None if the look fails, for want of a descriptor say."""
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
