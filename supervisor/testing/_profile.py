"""Hypothesis's settings for examples that run in containers.

Hypothesis calls `register` while Hypothesis is being imported (entry point ``hypothesis``), so only
the functions here import Hypothesis, not this module.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

from ..values import InvalidValue

if TYPE_CHECKING:
    from hypothesis import settings

PROFILE: Final = "trio-supervisor"
"""The profile's name in Hypothesis."""

DEADLINE: Final = datetime.timedelta(milliseconds=500)


def profile(*, deadline: datetime.timedelta | None = DEADLINE, **options: Any) -> settings:
    """Return Hypothesis settings for tests whose examples run in containers.

    The profile is also registered by name: ``settings.load_profile("trio-supervisor")``, or
    ``pytest --hypothesis-profile=trio-supervisor``.

    Args:
        deadline: how long an example may take, without creates and deletes; None for no limit.
        options: further settings, as for `hypothesis.settings`.

    Raises:
        InvalidValue: Hypothesis refuses ``deadline``.
    """
    from hypothesis import HealthCheck, settings  # noqa: PLC0415

    try:
        settings(deadline=deadline)
    except Exception as error:  # a ValueError for NaN
        raise InvalidValue(f"deadline: Hypothesis refuses the value: {error!s:.200}") from error
    options.setdefault("suppress_health_check", [HealthCheck.too_slow])
    options.setdefault("print_blob", True)
    return settings(deadline=deadline, **options)


def register() -> None:
    """Register the profile; Hypothesis calls this function."""
    from hypothesis import settings  # noqa: PLC0415

    settings.register_profile(PROFILE, profile())
