"""The root: the directory of a supervisor's containers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator

import attrs

from ..state import RootLayout
from ..system import (
    PASSABLE,
    Descriptor,
    close_in_children,
    distrust_directory,
    distrust_way,
    lifted,
)
from ..values import InvalidValue, misplaced, spoilt


@attrs.frozen
class Root:
    """An open root: a durable one, or an ephemeral one that a keeper has made.

    Attributes:
        path: the real path.
        fd: a descriptor of the directory.
    """

    path: str
    fd: int


@contextlib.contextmanager
def durable_root(path: str | os.PathLike[str]) -> Iterator[Root]:
    """Open a durable root for the time of a block.

    Raises:
        InvalidValue: as `_open_durable`.
        DiskFull, TooManyFiles, InfrastructureError: the machine can't make or open the root.
    """
    real, descriptor = _open_durable(path)
    with descriptor:
        yield Root(real, descriptor.fd)


def _open_durable(path: str | os.PathLike[str]) -> tuple[str, Descriptor]:
    """Open a durable root, made if missing; return the real path as well.

    Raises:
        InvalidValue: the root isn't a directory, can't be made, opened or written; or another user
            may write to the root or replace it, or owns it. Such a user could make us run and kill
            anything.
    """
    given = _check_path(path)
    try:
        real = os.path.realpath(given)
        _check_spelling(real)
        _check_way(given, real)
        _make(given, real)
        descriptor = close_in_children(
            lifted(os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        )
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidValue(f"the root {given} is not a directory") from error
    except OSError as error:
        raise misplaced(error, f"the root {given} can't be made or opened") from error
    try:
        _check_owner(given, os.fstat(descriptor.fd))
        _check_runtime_root(given, real)
        _check_access(given, descriptor.fd)
    except BaseException as error:
        descriptor.close()
        if isinstance(error, OSError):
            raise misplaced(error, f"the root {given} can't be used") from error
        raise
    return real, descriptor


def root_to_read(path: str | os.PathLike[str]) -> str:
    """Return the real path of an existing root that the caller only reads.

    Raises:
        InvalidValue: there is no directory, or another user owns it, or may write to the root or
            replace it.
    """
    given = _check_path(path)
    real = os.path.realpath(given)
    _check_spelling(real)
    _check_way(given, real)
    try:
        status = os.stat(real)
    except OSError as error:
        raise misplaced(error, f"the root {given} can't be read") from error
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidValue(f"the root {given} is not a directory")
    _check_owner(given, status)
    if not os.access(real, os.R_OK | os.X_OK, effective_ids=True):
        mode = stat.S_IMODE(status.st_mode)
        raise InvalidValue(f"the root {given} can't be read (mode {mode:04o}): chmod u+rx it")
    return real


def _make(given: str, real: str) -> None:
    """Make a missing root, by its real path: a link in ``given`` may lead elsewhere by now.

    Directories above get the modes that the umask leaves. After a failure nothing is left.
    """
    if os.path.isdir(real):
        return
    if os.path.lexists(given):  # a file, or a dangling link
        raise FileExistsError(given)
    made: list[str] = []
    try:
        for path in _missing_above(real):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
                made.append(path)
        _check_way(given, real)  # under umask 0 others may write to the new directories above
        with contextlib.suppress(FileExistsError):
            os.mkdir(real, PASSABLE)
            made.append(real)
            os.chmod(real, PASSABLE)  # whatever the umask; no other user can have replaced it
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise


def _missing_above(path: str) -> list[str]:
    """Return the missing directories above a path, the highest first."""
    missing: list[str] = []
    while not os.path.isdir(path := os.path.dirname(path)):
        missing.insert(0, path)
    return missing


def _check_way(given: str, real: str) -> None:
    why = distrust_way(real)
    if why is not None:
        raise InvalidValue(f"the root {given} isn't safe: {why}")


def _check_runtime_root(given: str, real: str) -> None:
    """Refuse a root whose runtimes would trust another user's files: those contain hooks."""
    path = RootLayout(real).runtime_root
    with contextlib.suppress(FileNotFoundError):
        why = distrust_directory(path)
        if why is not None:
            raise InvalidValue(f"the root {given} isn't safe: {path} {why}")


def shared_runtime_root(path: str) -> str:
    """Return the real path of a runtime root that the caller named.

    Raises:
        InvalidValue: another user owns the directory, or may change or replace it.
    """
    real = os.path.realpath(path)
    spelling = spoilt(real)
    if spelling is not None:
        raise InvalidValue(f"Runtime(root={path!r}): {real!r} {spelling}")
    why = distrust_way(real)
    if why is None:
        with contextlib.suppress(FileNotFoundError):
            why = distrust_directory(real)
            why = why and f"it {why}"
    if why is not None:
        raise InvalidValue(f"Runtime(root={path!r}) isn't safe, since runtimes trust it: {why}")
    return real


def _check_path(path: str | os.PathLike[str]) -> str:
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise InvalidValue(f"the root {given!r} is no path")
    _check_spelling(given)
    return given


def _check_spelling(path: str) -> None:
    why = spoilt(path)
    if why is not None:
        raise InvalidValue(f"the root {path!r} {why}")


def _check_owner(given: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise InvalidValue(f"the root {given} belongs to uid {status.st_uid}, not to us")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidValue(f"others may write to the root {given}: use chmod go-w")


def _check_access(given: str, fd: int) -> None:
    """Refuse a root in which nothing can be made, before any resource is made."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        raise InvalidValue(f"the root {given} can't be written: its file system is read-only")
    if not os.access(".", os.R_OK | os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        raise InvalidValue(f"the root {given} can't be written (mode {mode:04o}): use chmod u+rwx")


def cgroup_stem(parent: str, root: str) -> str:
    """Return the ``linux.cgroupsPath`` of a root's containers, up to a dash and the id.

    An id under two roots has two paths. The hash includes the root directory's device and inode,
    since two mount namespaces may share a cgroup hierarchy and a path.
    """
    status = os.stat(root)
    identity = f"{root}\0{status.st_dev}\0{status.st_ino}".encode(errors="surrogateescape")
    return f"{parent}/{hashlib.sha256(identity).hexdigest()[:12]}"
