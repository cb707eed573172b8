"""What is in a bundle, and what a container is shown of it: config.json, the root filesystem."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import attrs

from ..rootfs import (
    HostView,
    MountTable,
    build_view,
    real_path,
    seal_submounts,
)
from ..spec import (
    Layer,
    inside,
    layer_size,
    surrounding_namespace,
    wants_layer,
)
from ..system import PASSABLE, scarce
from ..tasks import protected
from ..userns import (
    UserNamespace,
    namespace_of,
    wish_of,
)
from ._compose import derive_spec
from ._hooks import at_home

ROOTFS = "rootfs"
"""The name of a root filesystem in its bundle."""


@protected
@attrs.frozen(eq=False)
class Content:
    """A config.json and a root filesystem.

    Attributes:
        path: absolute path of the directory.
        spec: config.json as it was loaded or made. Don't change it.
    """

    path: str
    spec: dict[str, Any] = attrs.field(repr=False)
    _view: HostView | None = attrs.field(default=None, repr=False)

    @property
    def lists(self) -> str:
        """The root filesystem, on the host, whose lists of users and groups it has."""
        return self._rootfs if self._view is None else "/"

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
