"""`BundleOptions`: the keyword arguments of `Bundle.from_rootfs` and `from_host`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ..rootfs import AccountOptions
from ..spec import MountArgument, PrivilegeOptions, StopOptions
from ..userns import UserNamespaceArgument

StrPath = str | os.PathLike[str]


class BundleOptions(AccountOptions, PrivilegeOptions, StopOptions, total=False):
    """The options of a bundle, besides the root filesystem and the program.

    Attributes:
        path: the directory to write the bundle to, which must not hold a bundle yet; `load`
            reads the bundle later. By default a temporary directory that the bundle owns.
        env: variables, added to a default PATH. Our own environment isn't inherited.
        cwd: the working directory in the container.
        hostname: default ``"container"``.
        mounts: further mounts: `Mount` values or entries of config.json.
        writable: None for a read-only root with private, empty /tmp and /run (see
            ``tmpfs_bytes``). ``"direct"`` to write in ``rootfs``. ``"overlay"`` for a fresh
            layer over ``rootfs`` for each container: in memory, and gone with the container's
            last process. Don't change ``rootfs`` meanwhile. Mounts inside of ``rootfs`` aren't
            seen through a layer.
        layer_bytes: how much each container may write in the layer, before programs get *no
            space left*; half of the host's memory by default. Counted in ``memory_bytes``. The
            layer holds one file for each 4 KiB of this size, and always 1024.
        init: whether a tiny init is pid 1, forwards signals to the program and reaps. A
            program that is pid 1 ignores every signal without a handler. The exit status is the
            program's, with or without init.
        memory_bytes: how much memory the container may use. If the host counts swap, this
            includes swap. A process that the kernel kills at this limit has
            ``status.oom_killed``, also behind an init.
        pids: how many processes and threads the container may have, including an init.
        cpus: how many processors' time the container may use, such as 0.5 or 2.
        network: ``"none"`` (a network namespace with a loopback only) or ``"host"``.
        tmpfs_bytes: how much /tmp and /run may each hold, 256 MiB by default, counted in
            ``memory_bytes``; one file for each 4 KiB of this size, and always 1024. Only for
            ``writable=None``.
        userns: ``"auto"`` for a user namespace. Each container gets 65,536 host ids that no
            other container has: the container's root is no user of the host. ``"none"`` for no
            user namespace, root's default. Or mappings: a `UserNamespace`, or a sequence of
            ``(container, host, size)`` for uids and gids alike. An ordinary user always gets a
            user namespace: ``"auto"`` maps the user and the user's subordinate ids. ``rootfs`` is
            shown mapped, so that the container's root owns what root owns; then mounts inside
            of ``rootfs`` aren't seen. A tree that already belongs to the container's root on the
            host is shown as is. ``mounts`` aren't mapped.
    """

    path: StrPath | None
    env: Mapping[str, str] | None
    cwd: StrPath
    hostname: str | None
    mounts: Iterable[MountArgument]
    writable: str | None
    layer_bytes: int | None
    init: bool
    memory_bytes: int | None
    pids: int | None
    cpus: float | None
    network: str
    tmpfs_bytes: int | None
    userns: UserNamespaceArgument | None
