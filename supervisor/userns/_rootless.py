"""The user namespace of an ordinary user, and the limits that such a user can enforce.

Source: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence

from ..system import require_descriptor
from ..values import InvalidValue
from ._ids import IdMap, UserNamespace
from ._ranges import owned
from ._ranges import read_lines as _lines

CONTROLLERS = {"memory_bytes": "memory", "pids": "pids", "cpus": "cpu"}
"""The cgroup controller that enforces each limit."""


def user_namespace() -> UserNamespace | None:
    """Return the user namespace that this process's containers need, or None for root.

    Root in the container is our user. With ``newuidmap`` and ``newgidmap`` (which the runtimes
    call) the other ids are our user's subordinate ids; without them there are no others.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return None
    more_uids: tuple[IdMap, ...] = ()
    more_gids: tuple[IdMap, ...] = ()
    name = _name(uid)
    if name is not None and shutil.which("newuidmap") and shutil.which("newgidmap"):
        owners = {str(uid), name}
        more_uids = subordinate(_lines("/etc/subuid"), owners, own=uid)
        more_gids = subordinate(_lines("/etc/subgid"), owners, own=gid)
    return UserNamespace(
        uids=(IdMap(0, uid, 1), *more_uids),
        gids=(IdMap(0, gid, 1), *more_gids),
    )


def subordinate(lines: Sequence[str], owners: set[str], *, own: int = 0) -> tuple[IdMap, ...]:
    """Return the ranges that ``lines`` of a subuid file give to ``owners``, from id 1 on.

    Never root's id, whatever the file says, and never the ``own`` one, which is root inside.
    """
    maps = []
    first = 1
    for start, size in owned(lines, owners, never=(0, own)):
        maps.append(IdMap(first, start, size))
        first += size
    return tuple(maps)


def _name(uid: int) -> str | None:
    """Return the user's name; newuidmap refuses a user without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        require_descriptor()
        return None


def check_limits(wanted: Sequence[str], *, cgroup_root: str = "/sys/fs/cgroup") -> None:
    """Refuse limits that an ordinary user can't enforce.

    Args:
        wanted: the arguments that set limits.
        cgroup_root: where the cgroups are mounted.

    Raises:
        InvalidValue: this process has no cgroup to divide, or the cgroup lacks a controller.
    """
    if not wanted:
        return
    directory = _own_cgroup(cgroup_root)
    if directory is None or not os.access(directory, os.W_OK):
        raise InvalidValue(
            f"{', '.join(wanted)}: can't be enforced, since you aren't root and no cgroup "
            "(version 2) is delegated to you: run as root, or under systemd-run --user --scope "
            "-p Delegate=yes"
        )
    available = " ".join(_lines(os.path.join(directory, "cgroup.controllers"))).split()
    for name in wanted:
        if CONTROLLERS[name] not in available:
            raise InvalidValue(
                f"{name}: can't be enforced, since the cgroup delegated to you at {directory} "
                f"lacks the {CONTROLLERS[name]} controller"
            )


def _own_cgroup(cgroup_root: str) -> str | None:
    """Return our directory in the version 2 hierarchy, or None on a mixed system."""
    if not os.path.exists(os.path.join(cgroup_root, "cgroup.controllers")):
        return None
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            return os.path.join(cgroup_root, line.removeprefix("0::").lstrip("/"))
    return None
