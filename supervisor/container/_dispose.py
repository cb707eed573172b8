"""Remove every trace of a container: one way for delete, failed creates and recovery.

The order: the runtime's ``delete --force``, whatever is left in the cgroup, the cgroup's
directories in every hierarchy, our own directory (renamed away first). Each step may be
repeated, so a killed clean-up is done again by the next open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from functools import partial

import attrs

from ..bundle import read_config
from ..children import is_left_to_us
from ..process import Shared, shielded
from ..shim import RELEASE, Shim, send_line
from ..state import ContainerLayout, ContainerRecord, ProcessLayout, give_back, read_pid, read_shim
from ..system import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Lock, distrust_directory, held, openat2
from ..tasks import forked, nap, within
from ..values import (
    CleanupIncomplete,
    InfrastructureError,
    Point,
    RuntimeFailed,
    RuntimeTimeout,
    StateCorrupt,
    SupervisorError,
    scarcity,
)
from ._directories import NEW
from ._proof import is_ours

logger = logging.getLogger("supervisor")

DELETED = ".deleted-"
_POLL_SECONDS = 0.002
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@attrs.frozen(kw_only=True)
class Estate:
    """A container as far as removing it needs to know.

    Attributes:
        layout: its directory.
        record: its ``state.json``.
        lock: held by us; released when its directory is gone.
        ran: whether its runtime may ever have run; if not, it has nothing to forget.
    """

    layout: ContainerLayout
    record: ContainerRecord
    lock: Lock
    ran: bool = True


async def dispose(shared: Shared, estate: Estate) -> None:
    """Remove a container whose processes are dead or may be killed.

    Raises:
        CleanupIncomplete: it took longer than ``deadlines.cleanup`` or a step failed; says
            what is left. The lock stays with the caller.

    Cancellation: shielded, with ``deadlines.cleanup``.
    """
    seconds = shared.deadlines.cleanup
    failed: list[str] = []
    with shielded(seconds) as scope:
        if estate.ran:
            await _forget_in_runtime(shared, estate, failed)
            shared.reach(Point.FORGOTTEN)
        await _empty_cgroup(shared, estate, failed)
        for process in estate.layout.processes():
            await end_left(shared, process)
        with within(shared.deadlines.shim):
            await shared.wards.end(estate.layout.path)
        shared.reach(Point.CGROUP_REMOVED)
        if not failed:
            with _noted(failed):
                await _await_shims(shared, estate.layout)
                shared.reach(Point.SHIMS_GONE)
                give_back(estate.layout.path)
                remove_directory(estate.layout.path)
        if not failed:
            shared.reach(Point.REMOVED)
            estate.lock.release()
            return
    what = "took too long" if scope.cancelled_caught else "failed"
    raise incomplete(shared, estate, "; ".join(failed) or f"it had {seconds:g} seconds", what=what)


def incomplete(
    shared: Shared, estate: Estate, why: str, *, what: str = "failed"
) -> CleanupIncomplete:
    """Return the error for a container that couldn't be removed: why, and what is left of it."""
    return CleanupIncomplete(
        f"clean-up {what}: {why}. Left: {', '.join(leftovers(shared, estate))}",
        seconds=shared.deadlines.cleanup,
        container=estate.record.id,
    )


@contextlib.contextmanager
def _noted(failed: list[str]) -> Iterator[None]:
    """Take note of why a step failed: whoever disposes of it may repeat that later."""
    try:
        yield
    except (SupervisorError, OSError) as error:
        failed.append(str(error))


def leftovers(shared: Shared, estate: Estate) -> Sequence[str]:
    """Return the paths that still exist of a container."""
    record = estate.record
    groups = [] if record.cgroup is None else shared.hierarchies.remains(record.cgroup)
    own = [os.path.join(record.runtime_root, record.id), estate.layout.path]
    return [*groups, *(path for path in own if os.path.lexists(path))]


def sweep(directory: str) -> None:
    """Remove the temporary directories that killed supervisors left in a root or a container.

    One that is being made has its lock held, or not yet; its maker makes another one if it is
    gone. One that is being removed may as well be removed by two.

    Raises:
        TooManyFiles, OSError: the directory can't be listed.
    """
    try:
        with os.scandir(directory) as entries:
            found = [entry.path for entry in entries if entry.name.startswith((NEW, DELETED))]
    except OSError as error:
        raise scarcity(error) from error
    for path in found:
        with contextlib.suppress(OSError, StateCorrupt):  # a lock of somebody else's, too
            if distrust_directory(path) is not None:
                continue  # somebody else's
            if os.path.basename(path).startswith(DELETED):
                _remove_tree(path)
            else:
                _sweep_new(path)


def _sweep_new(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)  # its lock is the first thing that is in it
        return
    lock = Lock.take(os.path.join(path, "lock"))
    if lock is not None:  # and its maker can't have it any more
        with lock:
            remove_directory(path)


def remove_directory(path: str) -> None:
    """Remove a directory of ours: renamed away first, so that nobody sees half of it."""
    if forked():
        return
    doomed = os.path.join(os.path.dirname(path), f"{DELETED}{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        _remove_tree(doomed)


def _remove_tree(path: str) -> None:
    """Remove a directory: by descriptors, so that whoever changes it meanwhile leads us nowhere.

    What can't be removed, and what is mounted there, is left for the next open.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, _DIRECTORY | os.O_CLOEXEC)
        try:
            _empty(fd)
        finally:
            os.close(fd)
        os.rmdir(path)


def _empty(directory: int) -> None:
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with contextlib.suppress(OSError):
            if is_directory:
                _remove_below(directory, name)
            else:
                os.unlink(name, dir_fd=directory)


def _remove_below(directory: int, name: str) -> None:
    fd = openat2(directory, name, _DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


async def _forget_in_runtime(shared: Shared, estate: Estate, failed: list[str]) -> None:
    """Have the runtime forget it; or forget it for the runtime, if a hook keeps that from it."""
    record = estate.record
    runtime = shared.runtime_of(record, estate.lock)
    for attempt in range(2):
        try:
            if await is_ours(shared, estate.layout, record, estate.lock):
                await runtime.delete(
                    log=estate.layout.init.log("delete"),
                    has_hooks=lambda: _has_hooks(estate.layout),
                )
            return
        except (SupervisorError, OSError) as error:
            stuck = isinstance(error, RuntimeTimeout) and _has_hooks(estate.layout)
            if stuck and await _forget_without_runtime(shared, estate, error):
                return
            if stuck or attempt == 1:
                if not isinstance(error, RuntimeFailed) or _may_be_known(record):
                    failed.append(str(error))
                return
        if record.cgroup is not None:  # what the runtime couldn't remove keeps it from deleting
            with within(shared.deadlines.kill):
                await shared.hierarchies.remove(record.cgroup)


def _has_hooks(layout: ContainerLayout) -> bool:
    """Whether a delete of it runs hooks, for which the runtime waits."""
    try:
        return bool((read_config(layout.bundle).get("hooks") or {}).get("poststop"))
    except (SupervisorError, AttributeError):
        return False


async def _forget_without_runtime(shared: Shared, estate: Estate, error: Exception) -> bool:
    """Remove what the runtime keeps of a container in which nothing is left; whether that is so.

    Its hooks have had their time, and each further delete would only run them once more. A hook
    that fails after the end is a warning (OCI runtime spec, "Lifecycle").
    """
    record = estate.record
    if record.cgroup is not None:
        with within(shared.deadlines.kill):
            await shared.hierarchies.remove(record.cgroup)
        if shared.hierarchies.exists(record.cgroup):
            return False
    if not await is_ours(shared, estate.layout, record, estate.lock):
        return False
    remove_directory(os.path.join(record.runtime_root, record.id))
    if _is_known(record):
        return False
    logger.warning("%s: what it kept of the container was removed without it", error)
    return True


async def end_left(shared: Shared, layout: ProcessLayout) -> None:
    """Reap what a process directory names, if its shim was killed and it was left to us.

    The shim may have been killed before its report. What was killed just now may need a moment.
    """
    with contextlib.suppress(StateCorrupt, InfrastructureError):
        pid, shim = read_pid(layout.pid), read_shim(layout.shim)
        if pid is None or shim is None or not is_left_to_us() or held(layout.shim):
            return
        with within(shared.deadlines.shim):
            while shared.wards.is_ending(pid, since=shim[1]):
                shared.wards.add(layout.path, pid, since=shim[1])
                await shared.wards.end(layout.path)
                await nap(_POLL_SECONDS)


def _is_known(record: ContainerRecord) -> bool:
    """Whether the runtime keeps something of a container."""
    return os.path.lexists(os.path.join(record.runtime_root, record.id))


def _may_be_known(record: ContainerRecord) -> bool:
    """Whether a runtime that can't delete a container may keep something of it, by any name.

    One that doesn't even understand its command line has made nothing: then its words aren't what
    keeps the id taken.
    """
    try:
        return any(record.id in name for name in os.listdir(record.runtime_root))
    except FileNotFoundError:
        return False
    except OSError:
        return True


async def _empty_cgroup(shared: Shared, estate: Estate, failed: list[str]) -> None:
    if estate.record.cgroup is None:
        return
    with _noted(failed):
        look_for_wards(shared, estate.layout, estate.record.cgroup)
        await shared.hierarchies.remove(estate.record.cgroup)


def look_for_wards(shared: Shared, layout: ContainerLayout, cgroup: str) -> None:
    """Take note of those in a cgroup that were left to us, before they are killed."""
    shared.wards.look(layout.path, partial(shared.hierarchies.members, cgroup))


async def _await_shims(shared: Shared, layout: ContainerLayout) -> None:
    """Wait until the shims are gone, and kill those that are stuck."""
    for process in layout.processes():
        if not held(process.shim):
            continue
        with contextlib.suppress(OSError):
            send_line(process.control, RELEASE)  # nobody will read its output
        shim = Shim.adopt(process)
        try:
            with within(shared.deadlines.shim):
                await shim.wait_gone()
                continue
            shim.kill()
            await shim.wait_gone()
        finally:
            shim.close()
