"""The mounts of a container: a caller's, and those that every Linux program expects.

Source: OCI runtime spec, "Mounts" and "Default Filesystems".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ..values import InvalidValue, check_text

READ_ONLY_TREE = ("rbind", "ro", "rro", "nosuid", "rnosuid", "nodev", "rnodev")
"""``ro`` alone leaves mounts inside writable, and ``nodev`` alone leaves their devices usable."""

READ_ONLY_FILE = ("bind", "ro", "nosuid", "nodev")
"""A file has no mounts inside, and with ``rro`` crun 1.8 fails on a file (*Not a directory*)."""

WRITABLE_TREE = ("rbind", "rw", "nosuid", "rnosuid", "nodev", "rnodev")
WRITABLE_FILE = ("bind", "rw", "nosuid", "nodev")

_MOUNT_SETATTR = (5, 12)  # the first kernel with mount_setattr, which ``rro`` needs

DEVICES_BYTES = 64 << 20
"""The size limit of /dev, and of /dev/shm."""

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

    Mounts inside the directory are shown too. Setuid bits and device nodes have no effect there.

    Attributes:
        source: the absolute path on the host.
        destination: the absolute path in the container.
        read_only: whether the container can't write to the source, nor to mounts inside.
    """

    source: str = attrs.field(converter=_path, validator=_absolute)
    destination: str = attrs.field(converter=_path, validator=_absolute)
    read_only: bool = attrs.field(default=True, validator=_flag, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the entry for config.json's ``mounts``; looks at the source's kind on disk."""
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

    An empty file takes a kilobyte of the kernel's memory, and none of the size. So the number of
    files is bounded too: one for each page, and some in any case.
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


def absolute_sources(mounts: Sequence[dict[str, Any]], directory: str) -> list[dict[str, Any]]:
    """Return the mounts; a relative source of a bind mount is below ``directory``."""
    return [
        {**mount, "source": os.path.join(directory, source)}
        if (source := mount.get("source")) and not source.startswith("/") and is_bind(mount)
        else mount
        for mount in mounts
    ]


def system_mounts(*, tty_group: bool, own_sysfs: bool, cgroup: bool) -> list[dict[str, Any]]:
    """Return the mounts that every Linux program expects.

    Args:
        tty_group: whether group 5, the group of terminals, exists in the user namespace.
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
    """Return the first two numbers of a kernel's release; zeros if there are none."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    digits = [text for text in (major, minor) if text.isascii() and text.isdigit()]
    return (int(major), int(minor)) if len(digits) == 2 else (0, 0)


def _all_of_it() -> list[str]:
    """Return the option that makes all cgroups read-only, if ``ro`` isn't enough.

    Version 1 hierarchies are mounted in a tmpfs, which crun leaves writable: files there have no
    limit, and use the kernel's memory. (As a ``readonlyPaths`` entry the tmpfs would be bound with
    hierarchies that are writable again.)
    """
    known = kernel_version(os.uname().release) >= _MOUNT_SETATTR
    return ["rro"] if known and not _is_version_2() else []


def _is_version_2() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _once_more(quiet: list[str]) -> list[dict[str, Any]]:
    """Return a mount that remounts that tmpfs: runc has no ``rro`` for cgroups.

    With runc up to 1.1 no user may write to the tmpfs's directory, with 1.3 root may. A runtime
    that doesn't know ``remount`` mounts an empty tmpfs.
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
