"""Adopt all containers that earlier supervisors left below a root, within one deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import trio

from ..container import Core
from ..state import ContainerLayout, ContainerRecord, load
from ..tasks import within
from ..values import DeadlineExpired, InfrastructureError, StateCorrupt
from ._adopt import Broken, Recovery, adopt, delete_again, forget, take_over

_AT_ONCE = 16


@attrs.define
class Adopted:
    """The results of an adoption so far.

    Attributes:
        done: the ids of the containers that were looked at.
        cores: the containers that were adopted.
        broken: the containers that can't be supervised.
    """

    done: list[str] = attrs.field(factory=list)
    cores: list[Core] = attrs.field(factory=list)
    broken: list[Broken] = attrs.field(factory=list)

    def in_order(self) -> list[Core]:
        """Return the containers by id."""
        return sorted(self.cores, key=lambda core: core.record.id)


async def adopt_all(
    recovery: Recovery,
    layouts: Iterable[ContainerLayout],
    known: Callable[[str], Core | None],
    found: Adopted,
) -> None:
    """Adopt many containers, several at once, within one deadline for all.

    Args:
        recovery: what adoption needs of the supervisor.
        layouts: the containers.
        known: returns the core of an id, if the container is foreign or couldn't be deleted.
        found: gets the results; they count also when an error is raised.

    Raises:
        InfrastructureError: the machine had no space or descriptor for one of the containers, or
            ``deadlines.recovery`` passed; the next adoption does the rest.
    """
    at_once = trio.CapacityLimiter(_AT_ONCE)
    scarce: list[InfrastructureError] = []

    @trio.lowlevel.enable_ki_protection
    async def one(layout: ContainerLayout) -> None:
        try:
            async with at_once:
                await _adopt_into(recovery, layout, known(layout.id), found)
        except InfrastructureError as error:
            scarce.append(error)
            nursery.cancel_scope.cancel()

    seconds = recovery.shared.deadlines.recovery
    with within(seconds) as scope:
        async with trio.open_nursery() as nursery:
            for layout in layouts:
                nursery.start_soon(one, layout, name=f"{layout.id}: adopt")
    if scarce:
        raise scarce[0]
    if scope.cancelled_caught:
        raise DeadlineExpired(
            f"{recovery.shared.root}: not all containers were adopted within {seconds:g} seconds",
            seconds=seconds,
        )


async def _adopt_into(
    recovery: Recovery, layout: ContainerLayout, core: Core | None, found: Adopted
) -> None:
    made: Core | Broken | None
    if core is not None and core.lock is None and replaced(core):
        forget(core)
        core = None
    if core is not None and core.lock is not None:
        made = await delete_again(core)
    else:
        made = await (adopt(recovery, layout) if core is None else take_over(recovery, core))
    found.done.append(layout.id)
    if isinstance(made, Core):
        found.cores.append(made)
    elif isinstance(made, Broken):
        found.broken.append(made)


def replaced(core: Core) -> bool:
    """Whether a foreign container was deleted, and perhaps another one made with the same id."""
    try:
        now = load(ContainerRecord, core.layout.state)
    except FileNotFoundError:
        return True
    except InfrastructureError:
        raise
    except (StateCorrupt, OSError):
        return False  # `take_over` then reports what is wrong
    return now.created_ns != core.record.created_ns
