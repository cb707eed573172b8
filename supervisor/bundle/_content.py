"""`Content`: a bundle's config.json and root filesystem, and what a container sees of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
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
from ..state import Block, Ranges
from ..system import PASSABLE
from ..tasks import protected
from ..userns import (
    AUTO,
    UserNamespace,
    blocks,
    namespace_of,
    wish_of,
)
from ..values import raise_if_scarce
from ._compose import derive_spec
from ._hooks import at_home

ROOTFS = "rootfs"
"""The name of the root filesystem in a bundle's directory."""


@protected
@attrs.frozen(eq=False)
class Content:
    """A config.json and a root filesystem.

    Attributes:
        path: absolute path of the directory.
        spec: config.json as loaded or made. Don't change this dict.
        wish: the wish for a user namespace in there; see `wish_of`.
        layered: whether each container gets a layer of its own.
    """

    path: str
    spec: dict[str, Any] = attrs.field(repr=False)
    _view: HostView | None = attrs.field(default=None, repr=False)
    wish: str | None = attrs.field(
        init=False, default=attrs.Factory(lambda one: wish_of(one.spec), takes_self=True)
    )
    layered: bool = attrs.field(
        init=False, default=attrs.Factory(lambda one: wants_layer(one.spec), takes_self=True)
    )
    _blocks: Sequence[Block] | None = attrs.field(default=None, init=False, repr=False)

    @property
    def lists(self) -> str:
        """The root filesystem on the host with the container's lists of users and groups."""
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
            directory: the absolute path of the container's own bundle directory, which needs a
                call of `build_rootfs`, too; None to run in this bundle's directory.
            ids: the ids of the container's user namespace, in place of the bundle's.
            mounts: the host's mount table, if the caller has read that already.
        """
        spec = derive_spec(self.spec, self.path, cgroup=cgroup)
        if ids is not None:
            spec["linux"] |= ids.to_json()
        if directory is None:
            spec["root"]["path"] = self._rootfs
            return spec
        spec = at_home(spec, self.path, directory)
        layer = self.layer(directory)
        if layer is not None:
            spec["root"]["readonly"] = False
            if layer.namespace is not None:
                spec["linux"] |= inside(layer.namespace)
        if self._is_made(ids):
            spec["root"]["path"] = os.path.join(directory, ROOTFS)
            return spec
        spec["root"]["path"] = self._rootfs
        if mounts is not None:
            return seal_submounts(spec, mounts)
        with contextlib.closing(MountTable()) as read:
            return seal_submounts(spec, read)

    def shim_options(self, directory: str, ids: UserNamespace | None) -> list[str]:
        """Return the shim's options for the root filesystem of a config.json.

        Args:
            directory: as for `derive`.
            ids: as for `derive`.

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
        """The root filesystem's real path: a link on the way may change before the next create."""
        path = os.path.join(self.path, self.spec["root"]["path"])
        return real_path(path) or os.path.normpath(path)

    def _mapped(self, ids: UserNamespace | None) -> UserNamespace | None:
        """Return the ids that the shim maps the root filesystem to; None for no mapping.

        A tree that belongs to the container's root on the host is shown as is.
        """
        if self._view is not None or self.wish is None or os.geteuid() != 0:
            return None
        ids = ids or namespace_of(self.spec)
        with contextlib.suppress(OSError):  # the shim reports what is wrong with the directory
            if os.stat(self._rootfs).st_uid == ids.root[0]:
                return None
        return ids

    def _is_made(self, ids: UserNamespace | None) -> bool:
        """Whether the container has a root filesystem of its own, made by us or by the shim."""
        return self._view is not None or self.layered or self._mapped(ids) is not None

    def layer(self, directory: str) -> Layer | None:
        """Return the layer that a config.json derived for ``directory`` needs, or None.

        Raises:
            InvalidValue: you aren't root, and this bundle can't have a layer then.
        """
        if not self.layered:
            return None
        target = os.path.join(directory, ROOTFS)
        return Layer(
            lower=self._rootfs if self._view is None else target,
            target=target,
            size_bytes=layer_size(self.spec),
            namespace=surrounding_namespace(self.spec, uid=os.geteuid()),
        )

    @property
    def id_blocks(self) -> Sequence[Block] | None:
        """The blocks of ids for ``"auto"``: each container gets one. None without ``"auto"``.

        The blocks are looked up once.

        Raises:
            InvalidValue: this host has no such blocks.
        """
        if self.wish != AUTO or os.geteuid() != 0:
            return None
        if self._blocks is None:
            object.__setattr__(self, "_blocks", blocks())
        return self._blocks

    @property
    def given_ids(self) -> tuple[Ranges, Ranges]:
        """The host uids and gids that root's containers get from the bundle's explicit mappings.

        Each range is the first id and the size.
        """
        if self.wish == AUTO or os.geteuid() != 0:
            return (), ()
        uids, gids = (
            [(one["hostID"], one["size"]) for one in self.spec["linux"].get(key) or ()]
            for key in ("uidMappings", "gidMappings")
        )
        return uids, gids

    def build_rootfs(self, directory: str, ids: UserNamespace | None = None) -> None:
        """Make in ``directory`` what the config.json derived for that directory needs.

        For a bundle made by `from_host` that is a root filesystem; for a layer or a mapped root,
        an empty directory as mount point; otherwise nothing. Each container needs its own, since a
        container can outlive a temporary bundle: removing a mount point also unmounts in other
        mount namespaces, and the container would lose /usr.

        Args:
            directory: an existing directory, which stays for as long as the container. The
                directory may still be renamed before the container is created.
            ids: as for `derive`.

        Raises:
            DiskFull: no space; some files may be left in ``directory``.
            OSError: a file can't be written.
        """
        if not self._is_made(ids):
            return
        rootfs = os.path.join(directory, ROOTFS)
        try:
            if self._view is not None:
                build_view(self._view, rootfs, owner=self._view_owner(ids))
            else:
                os.mkdir(rootfs, PASSABLE)
                os.chmod(rootfs, PASSABLE)  # whatever the umask
        except OSError as error:
            raise_if_scarce(error)
            raise

    def _view_owner(self, ids: UserNamespace | None) -> tuple[int, int] | None:
        """Return the host ids of the container's root, if we can give files to that root."""
        if self.wish is None or os.geteuid() != 0:
            return None
        return (ids or namespace_of(self.spec)).root
