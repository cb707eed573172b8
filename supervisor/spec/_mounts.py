"""What is mounted in a container.

Source: OCI runtime spec, "Mounts" and "Default Filesystems".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from ..values import InvalidValue, check_text

READ_ONLY_TREE = ("rbind", "ro", "rro", "nosuid", "rnosuid", "nodev", "rnodev")
"""``ro`` alone leaves what is mounted inside writable, ``nodev`` alone its devices usable."""

READ_ONLY_FILE = ("bind", "ro", "nosuid", "nodev")
"""There is nothing inside a file, and crun 1.8 fails on one with ``rro`` (*Not a directory*)."""

WRITABLE_TREE = ("rbind", "rw", "nosuid", "rnosuid", "nodev", "rnodev")
WRITABLE_FILE = ("bind", "rw", "nosuid", "nodev")

_MOUNT_SETATTR = (5, 12)  # the kernel that has it: ``rro`` needs it

DEVICES_BYTES = 64 << 20
"""How much /dev may hold, and /dev/shm."""

BYTES_PER_FILE = 4096
LEAST_FILES = 1024


def _path(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _absolute(instance: Mount, attribute: attrs.Attribute[str], value: str) -> None:
    name = f"the {attribute.name} of a mount"
    if not check_text(value, name).startswith("/"):
        raise InvalidValue(f"{name} must be an absolute path, not {value!r}")


def _flag(instance: Mount, attribute: attrs.Attribute[bool], value: bool) -> None:
    if not isinstance(value, bool):
        raise InvalidValue(f"{attribute.name} must be True or False, not {type(value).__name__}")


@attrs.frozen
class Mount:
    """A file or directory of the host, shown in the container.

    Mounts inside the directory are shown too. Setuid bits and device nodes have no effect in it.

    Attributes:
        source: its absolute path on the host.
        destination: its absolute path in the container.
        read_only: whether the container can't write it, nor what is mounted inside it.
    """

    source: str = attrs.field(converter=_path, validator=_absolute)
    destination: str = attrs.field(converter=_path, validator=_absolute)
    read_only: bool = attrs.field(default=True, validator=_flag, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the entry for config.json's ``mounts``; looks at what the source is."""
        read_only, writable = (
            (READ_ONLY_TREE, WRITABLE_TREE)
            if os.path.isdir(self.source)
            else (READ_ONLY_FILE, WRITABLE_FILE)
        )
        return {
            "destination": self.destination,
            "type": "bind",
            "source": self.source,
            "options": list(read_only if self.read_only else writable),
        }


MountArgument = Mount | Mapping[str, Any]
"""A `Mount`, or an entry of config.json."""


def tmpfs(destination: str, *options: str, size_bytes: int) -> dict[str, Any]:
    """Return an entry for a private, empty, writable directory.

    An empty file takes a kilobyte of the kernel's memory and none of the size, so their number
    is bounded as well: one for each page, and a few in any case.
    """
    files = max(LEAST_FILES, size_bytes // BYTES_PER_FILE)
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", *options, f"size={size_bytes}", f"nr_inodes={files}"],
    }


def is_bind(mount: dict[str, Any]) -> bool:
    """Return whether the entry of config.json binds a path of the host."""
    options = mount.get("options") or ()
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def system_mounts(*, tty_group: bool, own_sysfs: bool, cgroup: bool) -> list[dict[str, Any]]:
    """Return the mounts that every Linux program expects.

    Args:
        tty_group: whether group 5, which terminals belong to, exists in the user namespace.
        own_sysfs: whether a sysfs may be mounted; otherwise the host's is bound.
        cgroup: whether the container sees its own cgroup, read-only.
    """
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    quiet = ["nosuid", "noexec", "nodev"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        tmpfs("/dev", "strictatime", "mode=755", size_bytes=DEVICES_BYTES),
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": [*terminals, *(["gid=5"] if tty_group else [])],
        },
        tmpfs("/dev/shm", "noexec", "nodev", "mode=1777", size_bytes=DEVICES_BYTES),
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": quiet,
        },
        _sysfs(own=own_sysfs),
    ]
    if cgroup:
        mounts.append(
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": [*quiet, "relatime", "ro", *_all_of_it()],
            }
        )
        mounts.extend(_once_more(quiet))
    return mounts


def kernel_version(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel's release; zeros if it has none."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    digits = [text for text in (major, minor) if text.isascii() and text.isdigit()]
    return (int(major), int(minor)) if len(digits) == 2 else (0, 0)


def _all_of_it() -> list[str]:
    """Return the option by which nothing of the cgroups is writable, where ``ro`` isn't enough.

    Of version 1 they are in a tmpfs, which crun leaves writable: without a bound on its files, on
    memory of the kernel's. (As a ``readonlyPaths`` it would be bound with hierarchies that are
    writable again.)
    """
    known = kernel_version(os.uname().release) >= _MOUNT_SETATTR
    return ["rro"] if known and not _is_version_2() else []


def _is_version_2() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _once_more(quiet: list[str]) -> list[dict[str, Any]]:
    """Return a mount that has that tmpfs remounted: runc has no ``rro`` for cgroups.

    Up to 1.1 its directory was nobody's to write to, of 1.3 it is root's. A runtime that doesn't
    know ``remount`` mounts an empty one.
    """
    if _is_version_2():
        return []
    return [
        {
            "destination": "/sys/fs/cgroup",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["remount", *quiet, "ro", "mode=755"],
        }
    ]


def _sysfs(*, own: bool) -> dict[str, Any]:
    if own:
        return {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }
    return {
        "destination": "/sys",
        "type": "bind",
        "source": "/sys",
        "options": [*READ_ONLY_TREE, "noexec"],
    }
