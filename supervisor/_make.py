"""Make the directories of a container and of a process, whole or not at all.

A directory is made under a temporary name with its lock held and its record in it, and renamed
into place before anything is launched: whoever finds it finds something to adopt or to remove.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ._errors import ContainerExists, InfrastructureError, InvalidValue, scarcity
from ._reserve import Reserve
from .state import (
    ContainerLayout,
    ContainerRecord,
    Lock,
    ProcessLayout,
    ProcessRecord,
    RootLayout,
    dump,
    write_new,
    write_whole,
)
from .stdio import Stdio, prepare

_TO_REMOVE = 6  # descriptors: rmtree needs one for each level, and one more
_DIRECTORY_MODE = 0o711  # a user namespace's root must be able to pass through


def make_container(
    root: str,
    record: ContainerRecord,
    spec: Mapping[str, Any],
    build_rootfs: Callable[[str], None],
) -> Lock:
    """Make a container's directory, with its state and its bundle.

    Args:
        root: the supervisor's.
        record: its ``state.json``.
        spec: the spec that is run.
        build_rootfs: makes in the bundle's directory what the spec needs there.

    Raises:
        ContainerExists: there is something of that id.
        DiskFull, TooManyFiles, OSError: it can't be made; nothing is left.
    """
    layout = RootLayout(root).container(record.id)

    def fill(path: str) -> None:
        temporary = ContainerLayout(path)
        write_new(temporary.state, dump(record))
        _make_directory(temporary.bundle)
        build_rootfs(temporary.bundle)
        write_new(temporary.config, json.dumps(spec).encode())

    try:
        return _make_locked(layout.path, fill)
    except FileExistsError as error:
        raise ContainerExists(
            f"there is one of that id under {root} already", container=record.id
        ) from error


def make_init(layout: ProcessLayout, record: ProcessRecord, stdio: Stdio) -> None:
    """Make the directory of a container's init; the container's lock covers it.

    Raises:
        DiskFull, TooManyFiles, OSError: it can't be made.
    """
    try:
        _make_directory(layout.path)
    except OSError as error:
        raise scarcity(error) from error
    _fill_process(layout.path, layout, record, stdio)


def make_exec(
    layout: ProcessLayout, record: ProcessRecord, stdio: Stdio, *, container: str
) -> Lock:
    """Make the directory of an exec, with a lock of its own.

    Raises:
        InvalidValue: the container has a process of that id.
        DiskFull, TooManyFiles, OSError: it can't be made; nothing is left.
    """
    try:
        return _make_locked(layout.path, lambda path: _fill_process(path, layout, record, stdio))
    except FileExistsError as error:
        raise InvalidValue(
            f"there is a process {layout.id!r} already", container=container
        ) from error


def _fill_process(path: str, layout: ProcessLayout, record: ProcessRecord, stdio: Stdio) -> None:
    """Fill the directory ``path``, which is, or will be renamed to, ``layout.path``."""
    write_whole(ProcessLayout(path).record, dump(record))
    prepare(stdio.moved(layout.path, path), uid=record.root_uid, gid=record.root_gid)


def _make_locked(path: str, fill: Callable[[str], None]) -> Lock:
    temporary = os.path.join(os.path.dirname(path), f".new-{secrets.token_hex(8)}")
    reserve = Reserve.take(_TO_REMOVE)
    lock = None
    try:
        _make_directory(temporary)
        lock = Lock.take(os.path.join(temporary, "lock"))
        assert lock is not None  # nobody else knows the name
        fill(temporary)
        _rename_new(temporary, path)
    except BaseException as error:
        reserve.release()
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            lock.release()
        if isinstance(error, OSError) and not isinstance(error, InfrastructureError):
            raise scarcity(error) from error
        raise
    reserve.release()
    return lock


def _rename_new(temporary: str, path: str) -> None:
    """Rename a directory onto a name that is free: rename(2) would replace an empty one."""
    if os.path.lexists(path):
        raise FileExistsError(path)
    try:
        os.rename(temporary, path)
    except OSError as error:  # ENOTEMPTY, ENOTDIR: somebody was quicker
        if os.path.lexists(path):
            raise FileExistsError(path) from error
        raise


def _make_directory(path: str) -> None:
    os.mkdir(path, _DIRECTORY_MODE)
    os.chmod(path, _DIRECTORY_MODE)  # whatever the umask
