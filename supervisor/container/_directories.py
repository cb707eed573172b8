"""Making the directories of containers and processes, each whole or not at all.

A directory is made under a temporary name, with the lock held and the record inside, and renamed
into place before anything is launched: the next open can adopt or remove any directory it finds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable

from ..observers import Observers, Point
from ..state import (
    Claim,
    ContainerLayout,
    ProcessLayout,
    ProcessRecord,
    dump,
)
from ..stdio import Stdio, prepare
from ..system import PASSABLE, Lock, Reserve, write_new
from ..values import (
    ContainerExists,
    InvalidValue,
    raise_if_scarce,
)
from ._plan import Plan

NEW = ".new-"
_TRIES = 100
_TO_REMOVE = 6  # descriptors: rmtree needs one for each level, and one besides


def make_container(
    plan: Plan,
    stdio: Stdio,
    build_rootfs: Callable[[str], None],
    *,
    cleanup: bytes | None = None,
    claim: Claim | None = None,
    observers: Observers,
) -> Lock:
    """Make a container's directory, with the record, the bundle, and the init's directory.

    Args:
        plan: the container's plan.
        stdio: the plan's standard streams, opened.
        build_rootfs: makes the spec's files and directories in the bundle's directory.
        cleanup: the keeper's list for the container, on a leash.
        claim: the claim on the ids of the user namespace; the directory gets a link to the claim.
        observers: notified of each `Point`.

    Raises:
        ContainerExists: the id is in use.
        DiskFull, TooManyFiles, OSError: the directory can't be made; nothing is left.
    """

    def fill(path: str) -> None:
        temporary, state, process = ContainerLayout(path), dump(plan.record), dump(plan.init)
        if claim is not None:
            os.symlink(claim.path, temporary.ids)
        _make_directory(temporary.bundle)
        _make_directory(temporary.init.path)
        build_rootfs(temporary.bundle)
        write_new(temporary.state, state)
        write_new(temporary.config, json.dumps(plan.spec, ensure_ascii=False).encode())
        if cleanup is not None:
            write_new(temporary.cleanup, cleanup)
        write_new(temporary.init.record, process)
        prepare(stdio, temporary.init, uid=plan.init.root_uid, gid=plan.init.root_gid)

    path = plan.layout.path
    try:
        return _make_locked(path, fill, observers)
    except FileExistsError as error:
        raise ContainerExists(
            f"a container of that id exists already under {os.path.dirname(path)}",
            container=plan.record.id,
        ) from error


def make_exec(
    layout: ProcessLayout,
    record: ProcessRecord,
    stdio: Stdio,
    *,
    container: str,
    observers: Observers,
) -> Lock:
    """Make the directory of an exec, with the exec's own lock.

    Raises:
        InvalidValue: the container has a process of that id.
        DiskFull, TooManyFiles, OSError: the directory can't be made; nothing is left.
    """

    def fill(path: str) -> None:
        temporary = ProcessLayout(path)
        write_new(temporary.record, dump(record))
        prepare(stdio, temporary, uid=record.root_uid, gid=record.root_gid)

    try:
        return _make_locked(layout.path, fill, observers)
    except FileExistsError as error:
        raise InvalidValue(
            f"there is a process {layout.id!r} already", container=container
        ) from error


def _make_locked(path: str, fill: Callable[[str], None], observers: Observers) -> Lock:
    reserve = Reserve.take(_TO_REMOVE)
    temporary, lock = "", None
    try:
        temporary, lock = _make_temporary(os.path.dirname(path), observers)
        observers.notify(Point.LOCKED)
        fill(temporary)
        observers.notify(Point.FILLED)
        _rename_new(temporary, path)
        observers.notify(Point.DIRECTORY_MADE)
    except BaseException as error:
        reserve.release()
        if lock is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            lock.release()
        if isinstance(error, OSError):
            raise_if_scarce(error)
        raise
    reserve.release()
    return lock


def _make_temporary(parent: str, observers: Observers) -> tuple[str, Lock]:
    """Make a temporary directory, with the lock held.

    Until the lock is held, another supervisor's sweep may take the directory for an abandoned
    one, lock and remove it: then another directory is made.
    """
    for _ in range(_TRIES):
        path = os.path.join(parent, f"{NEW}{secrets.token_hex(8)}")
        with contextlib.ExitStack() as undo:
            os.mkdir(path, PASSABLE)
            undo.callback(_remove_begun, path)
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, PASSABLE)
                observers.notify(Point.TEMPORARY_MADE)
                lock = Lock.take(os.path.join(path, "lock"))
                if lock is not None:
                    undo.pop_all()
                    return path, lock
    raise OSError(errno.EBUSY, "other supervisors remove each new directory", parent)


def _remove_begun(path: str) -> None:
    """Remove a new directory before the lock is held; this takes no descriptor."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _rename_new(temporary: str, path: str) -> None:
    """Rename a directory to a free name: rename(2) would replace an empty directory."""
    if os.path.lexists(path):
        raise FileExistsError(path)
    try:
        os.rename(temporary, path)
    except OSError as error:  # ENOTEMPTY, ENOTDIR: another process was quicker
        if os.path.lexists(path):
            raise FileExistsError(path) from error
        raise


def _make_directory(path: str) -> None:
    os.mkdir(path, PASSABLE)
    os.chmod(path, PASSABLE)  # whatever the umask
