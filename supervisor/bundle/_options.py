"""What bundles are made with: the keyword arguments of `Bundle.from_rootfs` and `from_host`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ..rootfs import AccountOptions
from ..spec import MountArgument, PrivilegeOptions, StopOptions
from ..userns import UserNamespaceArgument

StrPath = str | os.PathLike[str]


class BundleOptions(AccountOptions, PrivilegeOptions, StopOptions, total=False):
    """What a bundle is made with, besides its root filesystem and its program.

    Attributes:
        path: where to write the bundle, if there is none yet: another time, `load` that.
            Default, a temporary directory that it owns.
        env: variables; they come over a default PATH. Nothing of ours is inherited.
        cwd: the directory in the container to start in.
        hostname: default ``"container"``.
        mounts: what else to mount: `Mount` values or entries of config.json.
        writable: None for a read-only root with private, empty /tmp and /run (see
            ``tmpfs_bytes``); ``"direct"`` to write in ``rootfs``; ``"overlay"`` for a fresh
            layer over ``rootfs`` for each container, in memory, that goes with its last
            process. Don't change ``rootfs`` meanwhile. What is mounted inside of ``rootfs``
            isn't seen through a layer.
        layer_bytes: how much each container may write in its layer before it gets *no space
            left*; default, half of the machine's memory. What it writes there is counted in
            ``memory_bytes``. It holds a file for each 4 KiB of them, and 1024 in any case.
        init: whether a tiny init is pid 1, forwards signals to the program and reaps. A
            program that is pid 1 itself ignores every signal that it has no handler for. How
            the program ends is told as without it.
        memory_bytes: how much memory it may use; no swap besides, where the machine counts
            that. What the kernel kills when it
            wants more has ``status.oom_killed``, also behind an init.
        pids: how many processes and threads it may have, an init included.
        cpus: how much processor time per time, such as 0.5 or 2.
        network: ``"none"`` (its own, with a loopback only) or ``"host"``.
        tmpfs_bytes: how much /tmp and /run may each hold, 256 MiB by default, counted in
            ``memory_bytes``; a file for each 4 KiB of them, and 1024 in any case. Only for
            ``writable=None``.
        userns: ``"auto"`` for a user namespace with 65,536 ids of the host's for each
            container, which no other one has: its root is nobody on the host. ``"none"`` for
            none, root's default. Or mappings: a `UserNamespace`, or a sequence of
            ``(container, host, size)`` for uids and gids alike. An ordinary user always gets
            one: ``"auto"`` is the user and its subordinate ids. What the container sees of
            ``rootfs`` is mapped, so that its root owns what root owns; what is mounted inside
            of ``rootfs`` isn't seen then, and a tree that belongs to the container's root on
            the host already is left as it is. ``mounts`` aren't mapped.
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
