"""The host's own programs as a read-only root filesystem: which parts are shown."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from ..spec import Mount
from ._secrets import is_public, secrets_below

TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links into /usr on a merged-usr system, directories elsewhere."""

ETC = (
    "alternatives",
    "ca-certificates",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/ct_log_list.cnf",
    "pki/tls/openssl.cnf",
    "pki/tls/openssl.d",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/ct_log_list.cnf",
    "ssl/openssl.cnf",
    "ssl/openssl.cnf.d",
    "terminfo",
    "timezone",
)
"""Public files that programs look up in /etc. Private keys lie beside certificates: so only these
names are shown, and not whole directories."""

ETC_NETWORK = ("hosts", "resolv.conf")
"""Files in /etc that programs need to find other machines."""

_LEVELS = 2
"""How many levels of directories in /usr are searched: /usr/lib, say, but no deeper."""

DIRECTORIES = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
LINKS = (("var/run", "/run"), ("var/tmp", "/tmp"))


@attrs.frozen(kw_only=True)
class HostView:
    """A root filesystem of links and mount points.

    Attributes:
        directories: to make, below the root filesystem, parents first.
        files: empty ones to make.
        links: (path, target) of symbolic links.
        mounts: entries for config.json.
        masked: paths in the container to cover: on the host not all users can read them.
    """

    directories: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    mounts: tuple[dict[str, Any], ...]
    masked: tuple[str, ...]


def view_host(*, network: bool, host_root: str = "/") -> HostView:
    """Look at the host, and return the parts that a container sees.

    Args:
        network: whether the container shares the host's network.
        host_root: the host's root directory.
    """
    names = [*TOP_LEVEL, "usr", *(f"etc/{name}" for name in ETC)]
    if network:
        names += [f"etc/{name}" for name in ETC_NETWORK]
    present = [
        (name, path)
        for name, path in _present(names, host_root)
        if not name.startswith("etc/") or is_public(path)
    ]
    links = [(name, os.readlink(path)) for name, path in present if _is_link(name, path)]
    bound = [(name, path) for name, path in present if not _is_link(name, path)]
    return HostView(
        directories=(
            *DIRECTORIES,
            *_parents(name for name, _ in present),
            *(name for name, path in bound if os.path.isdir(path) and name not in DIRECTORIES),
        ),
        files=tuple(name for name, path in bound if not os.path.isdir(path)),
        links=(*LINKS, *links),
        mounts=tuple(Mount(path, f"/{name}").to_json() for name, path in bound),
        masked=tuple(_masked(bound)),
    )


def _parents(names: Iterable[str]) -> list[str]:
    """Return the parent directories of ``names``, top first, except those always made."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split("/")[:-1]
        found |= dict.fromkeys("/".join(parts[: n + 1]) for n in range(len(parts)))
    return [name for name in found if name not in DIRECTORIES]


def _masked(bound: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield bound paths that not all users can read.

    In /usr, only /usr/local is searched as a whole, where administrators put things. /usr has
    hundreds of thousands of files, and a distribution's are public with few exceptions.
    """
    for name, path in bound:
        if os.path.isdir(path):
            ours = name.startswith("etc/")
            found = [secrets_below(path, levels=None if ours else _LEVELS, remembered=not ours)]
            if name == "usr":
                found.append(secrets_below(os.path.join(path, "local"), remembered=True))
            for secret in itertools.chain(*found):
                yield f"/{name}/{os.path.relpath(secret, path)}"


def _present(names: list[str], host_root: str) -> Iterator[tuple[str, str]]:
    for name in names:
        path = os.path.join(host_root, name)
        if os.path.exists(path):
            yield name, path


def _is_link(name: str, path: str) -> bool:
    """Return whether the link at ``path`` can be copied: if it leads into /usr, which is shown."""
    if not os.path.islink(path):
        return False
    target = os.path.normpath(os.path.join("/", os.path.dirname(name), os.readlink(path)))
    return target == "/usr" or target.startswith("/usr/")


def build_view(view: HostView, rootfs: str, *, owner: tuple[int, int] | None = None) -> None:
    """Make the directory ``rootfs`` with the links and mount points of ``view``.

    Args:
        view: what to make.
        rootfs: where to make the view.
        owner: the uid and gid of all files; None for ours.
    """
    _make_directory(rootfs, 0o755, owner)
    for name in view.directories:
        # Whatever the umask. runc gives a tmpfs the mode of the directory below, over any mode=
        # option.
        _make_directory(
            os.path.join(rootfs, name), 0o1777 if name in ("tmp", "run") else 0o755, owner
        )
    for name in view.files:
        path = os.path.join(rootfs, name)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        _give(path, owner)
    for name, target in view.links:
        path = os.path.join(rootfs, name)
        os.symlink(target, path)
        _give(path, owner)


def _make_directory(path: str, mode: int, owner: tuple[int, int] | None) -> None:
    os.mkdir(path)
    _give(path, owner)
    os.chmod(path, mode)


def _give(path: str, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.lchown(path, *owner)
