"""Who owns a file or directory, and who else may change it: only our own are trusted.

Source: inode(7), user_namespaces(7).
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from os import geteuid

from ..values import raise_if_scarce
from ._scarcity import require_descriptor

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_UID_MAP = "/proc/self/uid_map"
_OVERFLOW_ID = 65534  # stands for an owner without an id in our user namespace


def distrust(status: os.stat_result) -> str | None:
    """Return why a file isn't ours alone, for the end of a sentence; None if ours."""
    if status.st_uid != geteuid():
        return f"belongs to uid {status.st_uid}"
    if status.st_mode & _OTHERS_WRITE:
        return f"may be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def distrust_directory(path: str) -> str | None:
    """Return why ``path``, in a directory of ours, isn't our directory; None if ours.

    The owner can't replace ``path``, since the parent directory is ours: so one look is enough.

    Raises:
        FileNotFoundError: there is no such file.
    """
    status = os.lstat(path)
    return distrust(status) if stat.S_ISDIR(status.st_mode) else "is no directory"


def distrust_way(path: str) -> str | None:
    """Return which other user could replace the directory ``path``; None if no one could.

    Args:
        path: an absolute path without symbolic links; the last parts needn't exist yet.
    """
    for directory in _above(path):
        try:
            status = os.lstat(directory)
        except FileNotFoundError:
            continue
        if status.st_uid not in (0, geteuid()) and not _is_unmapped(status.st_uid):
            return f"{directory} belongs to uid {status.st_uid}, who can replace the content"
        if _others_may_rename(status) or _may_be_others(directory, status):
            return f"others may write to {directory}, and replace the content (use chmod go-w)"
    return None


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _others_may_rename(status: os.stat_result) -> bool:
    """Whether other users may rename entries of a directory; in a sticky one only owners may."""
    if status.st_mode & stat.S_ISVTX:
        return False
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_our_group(status.st_gid)


def _may_be_others(directory: str, status: os.stat_result) -> bool:
    """Whether an ACL may let other users write: the ACL's mask stands in the group bits' place.

    Source: acl(5), "Correspondence between ACL entries and file permission bits".
    """
    if status.st_mode & stat.S_ISVTX or not status.st_mode & stat.S_IWGRP:
        return False
    try:
        os.getxattr(directory, "system.posix_acl_access")
    except OSError:  # no ACL
        return False
    return True


def _is_our_group(gid: int) -> bool:
    """Whether we are the only member of a group: as a rule the group with our own name."""
    try:
        name, group = pwd.getpwuid(geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        require_descriptor()
        return False
    if group.gr_name != name or not set(group.gr_mem) <= {name}:
        return False
    return all(one.pw_gid != gid or one.pw_name == name for one in pwd.getpwall())


def _is_unmapped(uid: int) -> bool:
    """Whether the uid stands for a user outside our user namespace: the host's root."""
    if uid != _OVERFLOW_ID:
        return False
    try:
        with open(_UID_MAP, encoding="utf-8") as file:
            maps = [tuple(map(int, line.split())) for line in file]
        return not any(first <= uid < first + size for first, _, size in maps)
    except OSError as error:
        raise_if_scarce(error)
    except ValueError:
        pass
    return False
