"""Who a container's program runs as."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .._errors import InfrastructureError, InvalidValue, StateCorrupt
from .._syscall import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from ..state._files import read_found
from ..state._scarcity import scarce
from ._ids import parse_id

_LIST = "etc/passwd"


def find_user(user: tuple[int, int | None] | str | None, rootfs: str) -> tuple[int, int]:
    """Return the uid and gid that ``user`` stands for.

    A name is looked up in the root filesystem's own ``etc/passwd``, and so is the group of a
    uid given without one; a uid that isn't listed there has the group of the same number.

    Raises:
        InvalidValue: the name isn't listed, or the list can't be read.
    """
    if user is None:
        return 0, 0
    if isinstance(user, str):
        for name, uid, gid in _accounts(rootfs, user):
            if name == user:
                return uid, gid
        raise InvalidValue(f"user: {user!r} is not listed in {os.path.join(rootfs, 'etc/passwd')}")
    uid, group = user
    if group is not None:
        return uid, group
    return uid, _group_of(uid, rootfs)


def _group_of(uid: int, rootfs: str) -> int:
    try:
        accounts = _accounts(rootfs, str(uid))
    except InvalidValue:
        accounts = []  # a root filesystem needn't have one
    return next((gid for _, known, gid in accounts if known == uid), uid)


def _accounts(rootfs: str, user: str) -> list[tuple[str, int, int]]:
    path = os.path.join(rootfs, _LIST)
    try:
        with _found(rootfs) as fd:
            lines = read_found(fd, path).decode(errors="replace").splitlines()
    except StateCorrupt as error:
        raise InvalidValue(f"user: {user!r} can't be looked up: {error}") from error
    except InfrastructureError:
        raise
    except OSError as error:
        raise InvalidValue(
            f"user: {user!r} can't be looked up in {path}: {error.strerror}"
        ) from error
    return [account for line in lines if (account := _account(line)) is not None]


@contextlib.contextmanager
def _found(rootfs: str) -> Iterator[int]:
    """Find the list in a root filesystem, which may be anybody's, and may change meanwhile.

    Links are followed as they would be inside: none leads to a file of the host. Nothing is opened
    before it is known what it is: a device may do something when it is.
    """
    with scarce(), contextlib.ExitStack() as stack:
        top = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        fd = openat2(top, _LIST, os.O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        stack.callback(os.close, fd)
        yield fd


def _account(line: str) -> tuple[str, int, int] | None:
    fields = line.split(":")
    if len(fields) < 4:
        return None
    uid, gid = parse_id(fields[2]), parse_id(fields[3])
    return None if uid is None or gid is None else (fields[0], uid, gid)
