"""`Bundle`: a directory with config.json and a root filesystem, loaded or made.

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
from ..system import write_whole
from ..tasks import protected
from ..userns import (
    NONE,
    check_limits,
    check_user,
    check_userns,
    choose,
)
from ..values import InvalidValue, check_path, picked, raise_if_scarce, require_known
from ._arguments import Arguments, check_arguments
from ._compose import compose_spec
from ._content import ROOTFS, Content
from ._directory import Made, made_directory, remove_owned
from ._load import check_spec, read_config
from ._options import BundleOptions, StrPath


@protected
class _Removal(weakref.finalize):  # type: ignore[type-arg]
    """The removal of a directory with its bundle, protected: a KeyboardInterrupt would be lost."""

    __slots__ = ()

    def __call__(self, _: object = None) -> Any:
        return super().__call__(_)


@protected
@attrs.frozen(eq=False)
class Bundle:
    """A directory with ``config.json`` and a root filesystem.

    Make a bundle with `load`, `from_rootfs` or `from_host`. A bundle without a ``path`` is
    temporary: the directory is removed by `close`, at the end of a ``with`` block, when the bundle
    is garbage collected, and when the program ends. The bundles of a killed program are removed by
    the next program that makes a bundle in the same place; the keeper removes the bundle of a
    leashed container.

    Attributes:
        path: absolute path of the directory.
        spec: config.json as loaded or made. Don't change this dict.
    """

    path: str
    spec: dict[str, Any] = attrs.field(repr=False)
    _view: HostView | None = attrs.field(default=None, repr=False)
    _content: Content = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(
            lambda bundle: Content(bundle.path, bundle.spec, bundle._view), takes_self=True
        ),
    )
    _removal: _Removal | None = attrs.field(default=None, init=False, repr=False)

    @classmethod
    def load(cls, path: StrPath) -> Bundle:
        """Read the bundle at ``path``, and check all values that the runtimes read.

        Args:
            path: the directory.

        Raises:
            BundleInvalid: the bundle can't run; names the file and the place.
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

        The defaults are narrow: no new privileges, three capabilities, a read-only root, private
        namespaces of every kind, no network. An ordinary user gets a user namespace.

        Args:
            rootfs: the directory; a link is followed once, now. We write no files there, but
                runtimes make missing mount points (/proc, /dev, /sys, /tmp, /run, those of
                ``mounts``) and ``cwd``.
            args: the program, looked up in the container's PATH, and the program's arguments.
            options: see `BundleOptions`.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init=True``, and there is no static init program.
            DiskFull: no space for the bundle.
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

        The root filesystem consists of the host's /usr (and /bin, /lib, ...) and the few files in
        /etc that programs look up, all read-only. No other file of the host is there: give
        ``mounts`` for data.

        Args:
            args: see `from_rootfs`.
            options: see `BundleOptions`; but ``writable`` can't be ``"direct"``: there is no root
                filesystem to write in. With ``"overlay"``, all is writable except the host's own
                directories and files. ``network="host"`` also shows /etc/resolv.conf and
                /etc/hosts. With ``userns``, the host's files seem to belong to the overflow user
                (65534), and files that only the owner may read can't be read.

        Raises:
            InvalidValue: an argument can't work; nothing was written.
            ShimNotFound: ``init=True``, and there is no static init program.
            DiskFull: no space for the bundle.
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
        """Write the bundle; users are looked up in the root filesystem ``root``."""
        try:
            spec = _composed(wanted, options, root=root, view=view)
            path = options.get("path")
            target = None if path is None else _path(path, "path")
            if view is not None and target is not None and os.path.lexists(f"{target}/{ROOTFS}"):
                raise InvalidValue(
                    f"path: there is a {ROOTFS} in {target} already: load the bundle there, or "
                    "remove the directory"
                )
            with made_directory(target) as made:
                if view is not None:
                    build_view(view, os.path.join(made.path, ROOTFS))
                # On one line: indented JSON takes three times as long.
                text = json.dumps(spec, sort_keys=True) + "\n"
                write_whole(os.path.join(made.path, "config.json"), text.encode())
                bundle = cls(made.path, spec, view)
            if target is None:
                bundle._own(made)
            return bundle
        except OSError as error:
            raise_if_scarce(error)
            raise

    def _own(self, made: Made) -> None:
        removal = _Removal(self, remove_owned, made, os.getpid())
        object.__setattr__(self, "_removal", removal)

    @property
    def temporary(self) -> bool:
        """Whether the directory is removed with the bundle."""
        return self._removal is not None

    def close(self) -> None:
        """Remove a temporary bundle's directory. A second call does nothing."""
        if self._removal is not None:
            self._removal()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def content_of(bundle: Bundle) -> Content:
    """Return what a container sees of a bundle."""
    return bundle._content


def _composed(
    wanted: Arguments, options: BundleOptions, *, root: str, view: HostView | None
) -> dict[str, Any]:
    """Return the config.json of a new bundle."""
    stop = check_stop(**picked(options, StopOptions))
    choice = choose(check_userns(options.get("userns")), default=NONE)
    user = find_account(wanted.account, root)
    if choice.namespace is not None:
        check_user(choice.namespace, user)
    ordinary = os.geteuid() != 0
    if ordinary:
        check_limits(wanted.limits)
    return compose_spec(
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


def _path(path: StrPath, name: str) -> str:
    return os.path.abspath(check_path(path, name))
