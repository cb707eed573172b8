"""A bundle: a directory with config.json and a root filesystem, loaded or made.

Source: OCI runtime spec, bundle.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Sequence
from typing import Any, Unpack

import attrs

from ..rootfs import (
    HostView,
    MountTable,
    build_view,
    find_account,
    real_path,
    seal_submounts,
    view_host,
)
from ..spec import (
    OVERLAY,
    Layer,
    StopOptions,
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
    blocks,
    check_limits,
    check_user,
    check_userns,
    choose,
    namespace_of,
    wish_of,
)
from ..values import InvalidValue, check_path, picked, require_known
from ._arguments import Arguments, check_arguments
from ._compose import compose_spec, derive_spec
from ._directory import Made, made_directory, remove_owned
from ._hooks import at_home
from ._load import check_spec, read_config
from ._options import BundleOptions, StrPath

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
        cls, rootfs: StrPath, args: Sequence[str], **options: Unpack[BundleOptions]
    ) -> Bundle:
        """Make a bundle that runs a program in a root filesystem.

        The defaults are narrow: no privilege can be gained, three capabilities, a read-only root,
        private namespaces of every kind, no network. Whoever isn't root gets a user namespace.

        Args:
            rootfs: the directory; of a link, what it leads to now. We write nothing in it, but
                runtimes make what it lacks: the mount points (/proc, /dev, /sys, /tmp, /run,
                those of ``mounts``) and ``cwd``.
            args: the program and its arguments; looked up in the container's PATH.
            options: see `BundleOptions`.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init`` was asked for, and there is no static one.
            DiskFull: no space for it.
        """
        require_known(options, BundleOptions, "from_rootfs")
        given = _path(rootfs, "rootfs")
        root = real_path(given)
        if root is None or not os.path.isdir(root):
            raise InvalidValue(f"rootfs: there is no directory {given}")
        wanted = check_arguments(args, options)
        return cls._make(wanted, options, root=root, view=None)

    @classmethod
    def from_host(cls, args: Sequence[str], **options: Unpack[BundleOptions]) -> Bundle:
        """Make a bundle that runs one of the host's own programs.

        Its root filesystem is put together of the host's /usr (and /bin, /lib, ...) and the
        few files in /etc that programs look up, all read-only. Nothing else of the host is
        there: give ``mounts`` for data.

        Args:
            args: see `from_rootfs`.
            options: see `BundleOptions`; but ``writable`` can't be ``"direct"``: there is no root
                filesystem to write in. A layer holds all but the host's own directories and files.
                ``network="host"`` also shows /etc/resolv.conf and /etc/hosts. With ``userns``, the
                host's files look like nobody's, and those that only their owner may read can't be
                read.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init`` was asked for, and there is no static one.
            DiskFull: no space for it.
        """
        require_known(options, BundleOptions, "from_host")
        wanted = check_arguments(args, options)
        if wanted.writable not in (None, OVERLAY):
            raise InvalidValue(
                f"writable={wanted.writable!r}: the host's programs are shown read-only; use "
                f"{OVERLAY!r}, or mounts, for what is written"
            )
        view = view_host(network=wanted.network == "host")
        return cls._make(wanted, options, root="/", view=view)

    @classmethod
    def _make(
        cls, wanted: Arguments, options: BundleOptions, *, root: str, view: HostView | None
    ) -> Bundle:
        """Write the bundle; ``root`` is where users are looked up."""
        stop = check_stop(**picked(options, StopOptions))
        path = options.get("path")
        with scarce():
            choice = choose(check_userns(options.get("userns")), default=NONE)
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
