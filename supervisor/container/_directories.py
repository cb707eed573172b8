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
from collections.abc import Callable, Mapping
from typing import Any

from ..observers import Observers, Point
from ..state import (
    Claim,
    ContainerLayout,
    ContainerRecord,
    ProcessLayout,
    ProcessRecord,
    dump,
)
from ..stdio import Stdio, prepare
from ..system import PASSABLE, Lock, Reserve, write_new, write_whole
from ..values import (
    ContainerExists,
    InvalidValue,
    raise_if_scarce,
)

NEW = ".new-"
_TRIES = 100
_TO_REMOVE = 6  # descriptors: rmtree needs one for each level, and one besides


def make_container(
    layout: ContainerLayout,
    record: ContainerRecord,
    spec: Mapping[str, Any],
    build_rootfs: Callable[[str], None],
    *,
    cleanup: bytes | None = None,
    claim: Claim | None = None,
    observers: Observers,
) -> Lock:
    """Make a container's directory, with the record and the bundle.

    Args:
        layout: the container's directory.
        record: the container's ``state.json``.
        spec: the spec that is run.
        build_rootfs: makes the spec's files and directories in the bundle's directory.
        cleanup: the keeper's list for the container, on a leash.
        claim: the claim on the ids of the user namespace; the directory gets a link to the claim.
        observers: notified of each `Point`.

    Raises:
        ContainerExists: the id is in use.
        DiskFull, TooManyFiles, OSError: the directory can't be made; nothing is left.
    """

    def fill(path: str) -> None:
        temporary, state = ContainerLayout(path), dump(record)
        if claim is not None:
            os.symlink(claim.path, temporary.ids)
        _make_directory(temporary.bundle)
        build_rootfs(temporary.bundle)
        write_new(temporary.state, state)
        write_new(temporary.config, json.dumps(spec, ensure_ascii=False).encode())
        if cleanup is not None:
            write_new(temporary.cleanup, cleanup)

    try:
        return _make_locked(layout.path, fill, observers)
    except FileExistsError as error:
        raise ContainerExists(
            f"a container of that id exists already under {os.path.dirname(layout.path)}",
            container=record.id,
        ) from error


def make_init(layout: ProcessLayout, record: ProcessRecord, stdio: Stdio) -> None:
    """Make the directory of a container's init, under the container's lock.

    Raises:
        DiskFull, TooManyFiles, OSError: the directory can't be made.
    """
    try:
        _make_directory(layout.path)
    except OSError as error:
        raise_if_scarce(error)
        raise
    _fill_process(layout.path, record, stdio)


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
    try:
        return _make_locked(layout.path, lambda path: _fill_process(path, record, stdio), observers)
    except FileExistsError as error:
        raise InvalidValue(
            f"there is a process {layout.id!r} already", container=container
        ) from error


def _fill_process(path: str, record: ProcessRecord, stdio: Stdio) -> None:
    """Fill the process directory ``path``, which may still have a temporary name."""
    write_whole(ProcessLayout(path).record, dump(record))
    prepare(stdio, path, uid=record.root_uid, gid=record.root_gid)


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
