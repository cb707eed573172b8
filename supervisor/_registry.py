"""The registry of one supervisor's containers: each id is being made, held or broken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import attrs

from .container import Container, Core
from .observers import Gone
from .recovery import DELETED_ELSEWHERE, Adopted, Broken
from .state import ContainerLayout, RootLayout
from .tasks import protected
from .values import ContainerExists, State

REMEDY = "repair it, or `await supervisor.delete_broken(id)`"


@attrs.frozen(eq=False)
class Making:
    """A container that is being created here."""


@attrs.frozen(eq=False)
class Held:
    """A container that this supervisor owns, or a foreign one that it watches."""

    core: Core
    container: Container


@attrs.frozen(eq=False)
class Failed:
    """A container that can't be supervised.

    Attributes:
        broken: what is wrong with the container.
        core: the core, which still holds the lock, if only the delete failed; else None.
    """

    broken: Broken
    core: Core | None


@protected
class Registry:
    """All containers of one supervisor. Only these methods change the entry of an id."""

    def __init__(self, root: str) -> None:
        self._layout = RootLayout(root)
        self._entries: dict[str, Making | Held | Failed] = {}

    # ---- looking ------------------------------------------------------------------------

    def get(self, id: str) -> Making | Held | Failed | None:
        """Return the entry of an id; None if this supervisor has no such id."""
        return self._entries.get(id)

    @property
    def held(self) -> list[Held]:
        """The held containers, in the order in which they were added."""
        return [one for one in self._entries.values() if isinstance(one, Held)]

    @property
    def broken(self) -> dict[str, Broken]:
        """The broken containers, by id."""
        found = self._entries.items()
        return {id: one.broken for id, one in found if isinstance(one, Failed)}

    @property
    def cores(self) -> list[Core]:
        """The cores of all containers, also of those that couldn't be deleted."""
        return list(filter(None, map(self.core, self._entries)))

    def core(self, id: str) -> Core | None:
        """Return the core of an id, if there is one."""
        entry = self._entries.get(id)
        return None if entry is None or isinstance(entry, Making) else entry.core

    def _require_free(self, id: str) -> None:
        entry = self._entries.get(id)
        if isinstance(entry, Failed):
            raise ContainerExists(
                f"a broken one is at {entry.broken.path}, {REMEDY}: {entry.broken.reason}",
                container=id,
            )
        if entry is not None:
            raise ContainerExists(f"there is one under {self._layout.root} already", container=id)

    def unsupervised(self) -> list[ContainerLayout]:
        """Return the containers on disk that we neither own nor are making.

        The list also has containers of ours whose delete failed: perhaps no task works on such a
        container any more.
        """
        ours = {core.record.id: core for core in self.cores if core.lock is not None}
        making = {id for id, one in self._entries.items() if isinstance(one, Making)}
        others = [one for one in self._layout.containers() if one.id not in {*ours, *making}]
        return others + [one.layout for one in ours.values() if one.state is State.BROKEN]

    # ---- changes ------------------------------------------------------------------------

    @contextlib.contextmanager
    def making(self, id: str) -> Iterator[None]:
        """Reserve an id for the time of a create.

        Raises:
            ContainerExists: a container with this id exists, or is being made.
        """
        self._require_free(id)
        making = self._entries[id] = Making()
        try:
            yield
        finally:
            if self._entries.get(id) is making:
                del self._entries[id]

    def add(self, core: Core) -> Container:
        """Add a container, or a new core for the same id, to the held ones."""
        before = self._entries.pop(core.record.id, None)
        if isinstance(before, Held) and before.core is core:
            container = before.container
        else:
            container = Container(core)
        self._entries[container.id] = Held(core, container)
        return container

    def note_gone(self, gone: Gone) -> None:
        """Drop a container that was deleted; or, with an error, note that the delete failed.

        After a failed delete the core stays, and so does the lock, until the container is deleted
        or we close.
        """
        id = gone.container
        if gone.error is not None:
            path = self._layout.container(id).path
            broken = Broken(id=id, path=path, reason=str(gone.error))
            self._entries[id] = Failed(broken, self.core(id))
        elif not isinstance(self._entries.get(id), Making):  # a new container with this id
            self._entries.pop(id, None)

    def forget_broken(self, id: str) -> None:
        """Drop the broken container of an id, if there is one."""
        if isinstance(self._entries.get(id), Failed):
            del self._entries[id]

    def forget_deleted(self) -> None:
        """Drop foreign containers that were deleted, and broken ones whose directory is gone."""
        for id, entry in tuple(self._entries.items()):
            core = self.core(id)
            if core is None:
                if isinstance(entry, Failed) and not os.path.lexists(entry.broken.path):
                    del self._entries[id]
            elif core.lock is None and core.refresh() is State.DELETED:
                core.write_off(DELETED_ELSEWHERE)
                core.gone()

    def take_note(self, found: Adopted) -> list[Container]:
        """Hold the containers that an adoption found, and drop broken ones that are sound now.

        Returns:
            The containers that were adopted, by id.
        """
        for id in found.done:
            core = self.core(id)
            if core is None or core.state is not State.BROKEN:
                self.forget_broken(id)
        for broken in found.broken:
            self._set_aside(broken)
        return [self.add(core) for core in found.in_order() if self._is_new(core)]

    def _set_aside(self, broken: Broken) -> None:
        core = self.core(broken.id)
        if core is not None and core.lock is None:
            core.write_off(f"the container is broken: {broken.reason}")
            core = None
        self._entries[broken.id] = Failed(broken, core)

    def _is_new(self, core: Core) -> bool:
        """Whether to hold an adopted container; otherwise the container is dismissed.

        A container listed as foreign may be our own: created here after the listing. And an
        adopted container may have been deleted here since the adoption.
        """
        if core.state is State.BROKEN or (core.lock is not None and not core.held):
            return False
        ours = self.core(core.record.id)
        made_here = ours is not None and ours is not core and ours.lock is not None
        making = isinstance(self._entries.get(core.record.id), Making)
        if core.lock is None and (made_here or making):
            core.dismiss()
            return False
        return True
