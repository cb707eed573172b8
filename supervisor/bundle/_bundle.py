"""A bundle: a directory with config.json and a root filesystem, loaded or made.

Source: OCI runtime spec, bundle.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ..rootfs import (
    GroupArgument,
    GroupsArgument,
    HostView,
    MountTable,
    UserArgument,
    build_view,
    find_account,
    real_path,
    seal_submounts,
    view_host,
)
from ..spec import (
    OVERLAY,
    Layer,
    MountArgument,
    RlimitArgument,
    SeccompArgument,
    SignalArgument,
    StopWish,
    check_stop,
    init_path,
    inside,
    layer_size,
    surrounding_namespace,
    wants_layer,
)
from ..state import Block, Ranges
from ..system import PASSABLE, scarce, write_whole
from ..tasks import protected
from ..userns import (
    AUTO,
    NONE,
    UserNamespace,
    UserNamespaceArgument,
    blocks,
    check_limits,
    check_user,
    check_userns,
    choose,
    namespace_of,
    wish_of,
)
from ..values import InvalidValue, check_path
from ._arguments import Arguments, check_arguments
from ._compose import compose_spec, derive_spec
from ._directory import Made, made_directory, remove_owned
from ._hooks import at_home
from ._load import check_spec, read_config

StrPath = str | os.PathLike[str]

ROOTFS = "rootfs"
"""The name of a root filesystem in its bundle."""


@protected
class _Removal(weakref.finalize):  # type: ignore[type-arg]
    """Removes a directory when its bundle is gone: a KeyboardInterrupt in here would be lost."""

    __slots__ = ()

    def __call__(self, _: object = None) -> Any:
        return super().__call__(_)


@protected
@attrs.frozen(eq=False)
class Bundle:
    """A directory with ``config.json`` and a root filesystem.

    Make one with `load`, `from_rootfs` or `from_host`. One that was made without a ``path`` is
    temporary: it is removed by `close`, at the end of a ``with`` block around it, when it is
    garbage collected, and when the program ends. What a killed one leaves, the next one removes
    that makes one in the same place; a leashed container's goes with that.

    Attributes:
        path: absolute path of the directory.
        spec: config.json as it was loaded or made. Don't change it.
    """

    path: str
    spec: dict[str, Any] = attrs.field(repr=False)
    _view: HostView | None = attrs.field(default=None, repr=False)
    _removal: _Removal | None = attrs.field(default=None, init=False, repr=False)
    _blocks: Sequence[Block] | None = attrs.field(default=None, init=False, repr=False)

    @classmethod
    def load(cls, path: StrPath) -> Bundle:
        """Read the bundle at ``path`` and check all of it that the runtimes read.

        Args:
            path: the directory.

        Raises:
            BundleInvalid: something is wrong with it; names the file and the place.
            InvalidValue: ``path`` can't be a path.
        """
        directory = _path(path, "path")
        spec = read_config(directory)
        check_spec(spec, directory)
        return cls(directory, spec)

    @classmethod
    def from_rootfs(
        cls,
        rootfs: StrPath,
        args: Sequence[str],
        *,
        path: StrPath | None = None,
        env: Mapping[str, str] | None = None,
        cwd: StrPath = "/",
        user: UserArgument = None,
        group: GroupArgument = None,
        extra_groups: GroupsArgument = None,
        umask: int | None = None,
        hostname: str | None = None,
        mounts: Iterable[MountArgument] = (),
        writable: str | None = None,
        layer_bytes: int | None = None,
        init: bool = False,
        memory_bytes: int | None = None,
        pids: int | None = None,
        cpus: float | None = None,
        network: str = "none",
        tmpfs_bytes: int | None = None,
        capabilities: Iterable[str] | None = None,
        rlimits: Mapping[str, RlimitArgument] | None = None,
        oom_score_adj: int = 0,
        seccomp: SeccompArgument = "default",
        userns: UserNamespaceArgument | None = None,
        stop_signal: SignalArgument | None = None,
        stop_grace: float | None = None,
    ) -> Bundle:
        """Make a bundle that runs a program in a root filesystem.

        The defaults are narrow: no privilege can be gained, three capabilities, a read-only root,
        private namespaces of every kind, no network. Whoever isn't root gets a user namespace.

        Args:
            rootfs: the directory; of a link, what it leads to now. We write nothing in it, but
                runtimes make what it lacks: the mount points (/proc, /dev, /sys, /tmp, /run,
                those of ``mounts``) and ``cwd``.
            args: the program and its arguments; looked up in the container's PATH.
            path: where to write the bundle, if there is none yet: another time, `load` that.
                Default, a temporary directory that it owns.
            env: variables; they come over a default PATH. Nothing of ours is inherited.
            cwd: the directory in the container to start in.
            user: a uid, a pair of uid and gid, or a name from the root filesystem's etc/passwd;
                default root. A user alone gets its group from there too, or else the group of the
                same number; ``"user:group"`` says it. No supplementary groups of its own; runc
                keeps an ordinary caller's, which mean nobody inside.
            group: a gid, or a name from its etc/group, in place of the user's.
            extra_groups: its supplementary groups, ids or names.
            umask: of the program; by default 0o022, whatever this process's is.
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
            capabilities: the only ones it may have, such as ``"NET_RAW"`` or ``"CAP_NET_RAW"``;
                by default CAP_AUDIT_WRITE, CAP_KILL and CAP_NET_BIND_SERVICE. Given here, a
                ``user`` that isn't root has them as well.
            rlimits: limits of its processes by name (``"NOFILE"``, ``"RLIMIT_NOFILE"``): a
                number, or a soft and a hard one, in the units of getrlimit(2), -1 for unlimited.
                All others have defaults (docs/api.md): none is inherited. Without
                CAP_SYS_RESOURCE, a default is no higher than this process' own.
            oom_score_adj: how likely the kernel kills it when the machine's memory is used up:
                -1000 (never) to 1000. Without CAP_SYS_RESOURCE, no less than this process' own.
            seccomp: which system calls it may make: ``"default"``, ``"unconfined"`` for all, or a
                profile of OCI's ``linux.seccomp`` or docker's format, as a mapping or the path
                of a JSON file. With more ``capabilities``, the default one allows what those are
                for.
            userns: ``"auto"`` for a user namespace with 65,536 ids of the host's for each
                container, which no other one has: its root is nobody on the host. ``"none"`` for
                none, root's default. Or mappings: a `UserNamespace`, or a sequence of
                ``(container, host, size)`` for uids and gids alike. An ordinary user always gets
                one: ``"auto"`` is the user and its subordinate ids. What the container sees of
                ``rootfs`` is mapped, so that its root owns what root owns; what is mounted inside
                of ``rootfs`` isn't seen then, and a tree that belongs to the container's root on
                the host already is left as it is. ``mounts`` aren't mapped.
            stop_signal: what asks it to end, by number or name; SIGTERM by default. It stands in
                config.json as images have it: ``org.opencontainers.image.stopSignal``.
            stop_grace: how many seconds it is given then, 10 by default.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init`` was asked for, and there is no static one.
            DiskFull: no space for it.
        """
        given = _path(rootfs, "rootfs")
        root = real_path(given)
        if root is None or not os.path.isdir(root):
            raise InvalidValue(f"rootfs: there is no directory {given}")
        wanted = check_arguments(
            args,
            env=env,
            cwd=cwd,
            user=user,
            group=group,
            extra_groups=extra_groups,
            umask=umask,
            hostname=hostname,
            mounts=mounts,
            writable=writable,
            layer_bytes=layer_bytes,
            init=init,
            memory_bytes=memory_bytes,
            pids=pids,
            cpus=cpus,
            network=network,
            tmpfs_bytes=tmpfs_bytes,
            capabilities=capabilities,
            rlimits=rlimits,
            oom_score_adj=oom_score_adj,
            seccomp=seccomp,
        )
        stop = check_stop(stop_signal, stop_grace)
        return cls._make(wanted, path=path, root=root, view=None, userns=userns, stop=stop)

    @classmethod
    def from_host(
        cls,
        args: Sequence[str],
        *,
        path: StrPath | None = None,
        env: Mapping[str, str] | None = None,
        cwd: StrPath = "/",
        user: UserArgument = None,
        group: GroupArgument = None,
        extra_groups: GroupsArgument = None,
        umask: int | None = None,
        hostname: str | None = None,
        mounts: Iterable[MountArgument] = (),
        writable: str | None = None,
        layer_bytes: int | None = None,
        init: bool = False,
        memory_bytes: int | None = None,
        pids: int | None = None,
        cpus: float | None = None,
        network: str = "none",
        tmpfs_bytes: int | None = None,
        capabilities: Iterable[str] | None = None,
        rlimits: Mapping[str, RlimitArgument] | None = None,
        oom_score_adj: int = 0,
        seccomp: SeccompArgument = "default",
        userns: UserNamespaceArgument | None = None,
        stop_signal: SignalArgument | None = None,
        stop_grace: float | None = None,
    ) -> Bundle:
        """Make a bundle that runs one of the host's own programs.

        Its root filesystem is put together of the host's /usr (and /bin, /lib, ...) and the
        few files in /etc that programs look up, all read-only. Nothing else of the host is
        there: give ``mounts`` for data.

        Args:
            args: see `from_rootfs`, as for all others.
            writable: None for a private, empty /tmp and /run; ``"overlay"`` for a layer in which
                all but the host's own directories and files can be written. Not ``"direct"``:
                there is no root filesystem to write in.
            network: ``"host"`` also shows /etc/resolv.conf and /etc/hosts.
            userns: with one, the host's files look like nobody's, and those that only their owner
                may read can't be read.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init`` was asked for, and there is no static one.
            DiskFull: no space for it.
        """
        wanted = check_arguments(
            args,
            env=env,
            cwd=cwd,
            user=user,
            group=group,
            extra_groups=extra_groups,
            umask=umask,
            hostname=hostname,
            mounts=mounts,
            writable=writable,
            layer_bytes=layer_bytes,
            init=init,
            memory_bytes=memory_bytes,
            pids=pids,
            cpus=cpus,
            network=network,
            tmpfs_bytes=tmpfs_bytes,
            capabilities=capabilities,
            rlimits=rlimits,
            oom_score_adj=oom_score_adj,
            seccomp=seccomp,
        )
        if wanted.writable not in (None, OVERLAY):
            raise InvalidValue(
                f"writable={writable!r}: the host's programs are shown read-only; use "
                f"{OVERLAY!r}, or mounts, for what is written"
            )
        stop = check_stop(stop_signal, stop_grace)
        view = view_host(network=wanted.network == "host")
        return cls._make(wanted, path=path, root="/", view=view, userns=userns, stop=stop)

    @classmethod
    def _make(
        cls,
        wanted: Arguments,
        *,
        path: StrPath | None,
        root: str,
        view: HostView | None,
        userns: UserNamespaceArgument | None,
        stop: StopWish,
    ) -> Bundle:
        """Write the bundle; ``root`` is where users are looked up."""
        with scarce():
            choice = choose(check_userns(userns), default=NONE)
            user = find_account(wanted.account, root)
            if choice.namespace is not None:
                check_user(choice.namespace, user)
            ordinary = os.geteuid() != 0
            if ordinary:
                check_limits(wanted.limits)
            spec = compose_spec(
                wanted,
                root_path=root if view is None else ROOTFS,
                user=user,
                host_mounts=() if view is None else view.mounts,
                host_masked=() if view is None else view.masked,
                namespace=choice.namespace,
                ordinary=ordinary,
                annotations={**choice.annotations, **stop.annotations},
                init=init_path() if wanted.init else None,
            )
            target = None if path is None else _path(path, "path")
            if view is not None and target is not None and os.path.lexists(f"{target}/{ROOTFS}"):
                raise InvalidValue(
                    f"path: there is a {ROOTFS} in {target} already: load the bundle there, or "
                    "remove it"
                )
            with made_directory(target) as made:
                if view is not None:
                    build_view(view, os.path.join(made.path, ROOTFS))
                # On one line: laid out, it takes three times as long.
                text = json.dumps(spec, sort_keys=True) + "\n"
                write_whole(os.path.join(made.path, "config.json"), text.encode())
                bundle = cls(made.path, spec, view)
            if target is None:
                bundle._own(made)
            return bundle

    def _own(self, made: Made) -> None:
        removal = _Removal(self, remove_owned, made, os.getpid())
        object.__setattr__(self, "_removal", removal)

    @property
    def lists(self) -> str:
        """The root filesystem, on the host, whose lists of users and groups it has."""
        return self._rootfs if self._view is None else "/"

    @property
    def temporary(self) -> bool:
        """Whether its directory goes with it."""
        return self._removal is not None

    def derive(
        self,
        *,
        cgroup: str | None,
        directory: str | None = None,
        ids: UserNamespace | None = None,
        mounts: MountTable | None = None,
    ) -> dict[str, Any]:
        """Return the config.json that is run; see `derive_spec`.

        Args:
            cgroup: see `derive_spec`.
            directory: the absolute path of the container's own bundle directory, for which
                `build_rootfs` is called as well; None to run it on this bundle's directory.
            ids: of the container's user namespace, in place of the bundle's.
            mounts: those of this machine, if somebody has read them.
        """
        spec = derive_spec(self.spec, self.path, cgroup=cgroup)
        if ids is not None:
            spec["linux"] |= ids.to_json()
        spec["root"]["path"] = self._rootfs
        if directory is None:
            return spec
        spec = at_home(spec, real_path(self.path) or self.path, directory)
        if self._view is not None or self._is_shown(ids):
            spec["root"]["path"] = os.path.join(directory, ROOTFS)
        layer = self.layer(directory)
        if layer is not None:
            spec["root"]["readonly"] = False
            if layer.namespace is not None:
                spec["linux"] |= inside(layer.namespace)
        if mounts is not None:
            return seal_submounts(spec, mounts)
        with contextlib.closing(MountTable()) as read:
            return seal_submounts(spec, read)

    @property
    def id_blocks(self) -> Sequence[Block] | None:
        """The blocks of ids of which each container gets one; None if it doesn't.

        They are looked up once.

        Raises:
            InvalidValue: there are none here.
        """
        if wish_of(self.spec) != AUTO or os.geteuid() != 0:
            return None
        if self._blocks is None:
            object.__setattr__(self, "_blocks", blocks())
        return self._blocks

    @property
    def given_ids(self) -> tuple[Ranges, Ranges]:
        """The host's uids and gids that root's containers get by a caller's words, or a file's.

        Each range is its first id and its size.
        """
        if wish_of(self.spec) == AUTO or os.geteuid() != 0:
            return (), ()
        uids, gids = (
            [(one["hostID"], one["size"]) for one in self.spec["linux"].get(key) or ()]
            for key in ("uidMappings", "gidMappings")
        )
        return uids, gids

    def shim_options(self, directory: str, ids: UserNamespace | None) -> list[str]:
        """Return the shim's options for the root filesystem of a config.json.

        Args:
            directory: as it was derived for.
            ids: as it was derived with.

        Raises:
            InvalidValue: as `layer`.
        """
        layer = self.layer(directory)
        words = [] if layer is None else layer.options
        mapped = self._mapped(ids)
        if mapped is None:
            return words
        if layer is None:
            words += ["--lower", self._rootfs, "--target", os.path.join(directory, ROOTFS)]
        uids, gids = mapped.lines
        return [*words, "--lower-uids", uids, "--lower-gids", gids]

    @property
    def _rootfs(self) -> str:
        """Where it really is: a link on the way may lead elsewhere at each create."""
        path = os.path.join(self.path, self.spec["root"]["path"])
        return real_path(path) or os.path.normpath(path)

    def tree(self, directory: str) -> str:
        """Return where the root filesystem lies on the host that `build_rootfs` made for one."""
        return self._rootfs if self._view is None else os.path.join(directory, ROOTFS)

    def _mapped(self, ids: UserNamespace | None) -> UserNamespace | None:
        """Return the ids that the root filesystem's have to be shown as; None for what they are.

        A tree that was given to the container's root shows it as it is.
        """
        if self._view is not None or wish_of(self.spec) is None or os.geteuid() != 0:
            return None
        ids = ids or namespace_of(self.spec)
        with contextlib.suppress(OSError):  # the shim says what is wrong with it
            if os.stat(self._rootfs).st_uid == ids.root[0]:
                return None
        return ids

    def _is_shown(self, ids: UserNamespace | None) -> bool:
        """Whether the shim mounts the root filesystem at a place of the container's own."""
        return wants_layer(self.spec) or self._mapped(ids) is not None

    def layer(self, directory: str) -> Layer | None:
        """Return the layer that a config.json derived for ``directory`` needs, or None.

        Raises:
            InvalidValue: you aren't root, and the bundle can't have one then.
        """
        if not wants_layer(self.spec):
            return None
        target = os.path.join(directory, ROOTFS)
        return Layer(
            lower=self._rootfs if self._view is None else target,
            target=target,
            size_bytes=layer_size(self.spec),
            namespace=surrounding_namespace(self.spec, uid=os.geteuid()),
        )

    def build_rootfs(self, directory: str, ids: UserNamespace | None = None) -> None:
        """Make in ``directory`` what a config.json derived for it needs.

        That is a root filesystem of its own, if this bundle was made by `from_host`; an empty
        directory, where its layer or its mapped root is seen, if it has one; otherwise nothing.
        A container can outlive a temporary bundle, and removing a directory on which something is
        mounted in another mount namespace unmounts it there: the container would lose its /usr.

        Args:
            directory: an existing directory, which stays for as long as the container. It may
                still be renamed before the container is created.
            ids: as the config.json was derived with.

        Raises:
            DiskFull: no space; something may be left in ``directory``.
            OSError: it can't be written.
        """
        rootfs = os.path.join(directory, ROOTFS)
        with scarce():
            if self._view is not None:
                build_view(self._view, rootfs, owner=self._view_owner(ids))
            elif self._is_shown(ids):
                os.mkdir(rootfs, PASSABLE)
                os.chmod(rootfs, PASSABLE)  # whatever the umask

    def _view_owner(self, ids: UserNamespace | None) -> tuple[int, int] | None:
        """Return the host's ids of the container's root, if we can give it files."""
        if wish_of(self.spec) is None or os.geteuid() != 0:
            return None
        return (ids or namespace_of(self.spec)).root

    def close(self) -> None:
        """Remove its directory if it is temporary. Idempotent."""
        if self._removal is not None:
            self._removal()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _path(path: StrPath, name: str) -> str:
    return os.path.abspath(check_path(path, name))
