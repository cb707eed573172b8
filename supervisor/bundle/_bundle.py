"""A bundle: a directory with config.json and a root filesystem, loaded or made.

Source: OCI runtime spec, bundle.md.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence
from typing import Any, Unpack

import attrs

from ..rootfs import (
    HostView,
    build_view,
    find_account,
    real_path,
    view_host,
)
from ..spec import (
    OVERLAY,
    StopOptions,
    check_stop,
    init_path,
)
from ..state import Block, Ranges
from ..system import scarce, write_whole
from ..tasks import protected
from ..userns import (
    AUTO,
    NONE,
    blocks,
    check_limits,
    check_user,
    check_userns,
    choose,
    wish_of,
)
from ..values import InvalidValue, check_path, picked, require_known
from ._arguments import Arguments, check_arguments
from ._compose import compose_spec
from ._content import ROOTFS, Content
from ._directory import Made, made_directory, remove_owned
from ._load import check_spec, read_config
from ._options import BundleOptions, StrPath


@protected
class _Removal(weakref.finalize):  # type: ignore[type-arg]
    """Removes a directory when its bundle is gone: a KeyboardInterrupt in here would be lost."""

    __slots__ = ()

    def __call__(self, _: object = None) -> Any:
        return super().__call__(_)


@protected
@attrs.frozen(eq=False)
class Bundle(Content):
    """A directory with ``config.json`` and a root filesystem.

    Make one with `load`, `from_rootfs` or `from_host`. One that was made without a ``path`` is
    temporary: it is removed by `close`, at the end of a ``with`` block around it, when it is
    garbage collected, and when the program ends. What a killed one leaves, the next one removes
    that makes one in the same place; a leashed container's goes with that.

    Attributes:
        path: absolute path of the directory.
        spec: config.json as it was loaded or made. Don't change it.
    """

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
    def temporary(self) -> bool:
        """Whether its directory goes with it."""
        return self._removal is not None

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
