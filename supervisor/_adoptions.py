"""The adoptions of a supervisor: one after the other, and once more for unfinished containers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ._registry import Registry
from .container import Container, sweep
from .process import Shared
from .recovery import Adopted, Recovery, adopt_all, in_flight
from .tasks import nap, protected, within
from .values import SupervisorError

logger: Final = logging.getLogger("supervisor")

_LATER_SECONDS: Final = 0.05


@protected
class Adoptions:
    """The adoptions of one supervisor.

    Attributes:
        lock: held by an adoption, and by a delete of a broken container.
    """

    def __init__(self, nursery: trio.Nursery, registry: Registry) -> None:
        self._nursery = nursery
        self._registry = registry
        self._waiting = False  # whether a task waits for what is in flight
        self.lock = trio.Lock()

    async def adopt(self, shared: Shared, *, delete_unstarted: bool) -> list[Container]:
        """Adopt the containers below the root that we don't own; see `Supervisor.adopt`.

        Raises: as there.
        """
        recovery = Recovery(
            shared=shared,
            nursery=self._nursery,
            delete_unstarted=delete_unstarted,
        )
        registry = self._registry
        async with self.lock:
            found = Adopted()
            sweep(shared.root)
            registry.forget_deleted()
            try:
                await adopt_all(recovery, registry.unsupervised(), registry.core, found)
            finally:
                adopted = registry.take_note(found)
            return adopted

    def adopt_later(self, shared: Shared, adopt: Callable[[], Awaitable[object]]) -> None:
        """Call ``adopt`` again, in a task, when other supervisors' creates and deletes are done."""
        if not self._waiting and self._any_in_flight():
            self._waiting = True
            self._nursery.start_soon(self._adopt_later, shared, adopt)

    async def _adopt_later(self, shared: Shared, adopt: Callable[[], Awaitable[object]]) -> None:
        with within(shared.deadlines.cleanup + shared.deadlines.kill):
            while self._any_in_flight():
                await nap(_LATER_SECONDS, still=False)
        self._waiting = False
        try:
            await adopt()
        except SupervisorError as error:
            logger.warning("containers that others were making aren't adopted: %s", error)

    def _any_in_flight(self) -> bool:
        return any(map(in_flight, self._registry.unsupervised()))
