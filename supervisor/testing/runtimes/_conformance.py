"""`check_runtime`: check that a runtime's command line does what the library needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs
import trio

from ...bundle import Bundle
from ...runtime import Runtime
from ...values import check_kind, check_seconds
from .._arguments import check_one_of, check_several
from ._checks import CHECKS, Ability, Body
from ._rig import Rig, open_rig

CHECK_SECONDS: Final = 30.0


class ConformanceError(AssertionError):
    """A runtime doesn't do what the library needs; the message says what the runtime did.

    Attributes:
        check: the check's name.
    """

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


@attrs.frozen
class Conformance:
    """The result of `check_runtime`.

    Attributes:
        passed: the names of the checks that were made.
        undeclared: the names of the checks that weren't made, and the ability that each needs.
    """

    passed: tuple[str, ...]
    undeclared: dict[str, Ability]


async def check_runtime(
    runtime: Runtime,
    *,
    abilities: Iterable[Ability] = frozenset(Ability),
    only: Iterable[str] | None = None,
    bundle: Bundle | None = None,
    seconds: float = CHECK_SECONDS,
) -> Conformance:
    """Check that an OCI command line does what the library needs.

    Every check calls the runtime as the library does, without a supervisor or a shim. During the
    checks we are the subreaper of our descendants.

    Args:
        runtime: the command line.
        abilities: what the runtime claims to do. Checks of other abilities aren't made; the result
            names them.
        only: the names of the checks to make; None for all.
        bundle: the containers' bundle, which must contain ``sh``, ``cat``, ``echo``, ``env``,
            ``ls`` and ``true`` in ``/bin``; None for the host's programs.
        seconds: how long each check may take.

    Returns:
        Which checks were made, and which weren't.

    Raises:
        InvalidValue: there is no check of that name.
        ExceptionGroup: contains a `ConformanceError` for each check that failed.
    Cancellation: everything that a check has made is removed.
    """
    check_kind(runtime, Runtime, "runtime")
    wanted = tuple(CHECKS) if only is None else check_several(only, "only")
    for name in wanted:
        check_one_of(name, CHECKS, "only")
    claimed = check_several(abilities, "abilities")
    for one in claimed:
        check_kind(one, Ability, "abilities")
    if bundle is not None:
        check_kind(bundle, Bundle, "bundle")
    check_seconds(seconds, "seconds")
    passed: list[str] = []
    failed: list[ConformanceError] = []
    undeclared: dict[str, Ability] = {}
    async with open_rig(runtime, bundle) as rig:
        for name in wanted:
            body, ability = CHECKS[name]
            if ability is not None and ability not in claimed:
                undeclared[name] = ability
                continue
            error = await _try(rig, name, body, seconds)
            if error is None:
                passed.append(name)
            else:
                failed.append(error)
    if failed:
        raise ExceptionGroup(f"{runtime.name} doesn't behave as the library needs", failed)
    return Conformance(tuple(passed), undeclared)


async def _try(rig: Rig, name: str, body: Body, seconds: float) -> ConformanceError | None:
    scope = trio.move_on_after(seconds)
    try:
        with scope:
            await body(rig)
    except Exception as error:
        found = ConformanceError(name, str(error) or type(error).__name__)
        found.__cause__ = error
        return found
    if scope.cancelled_caught:
        return ConformanceError(name, f"the check took longer than {seconds:g} seconds")
    return None
