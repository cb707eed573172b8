"""Hypothesis's settings for examples that run in containers.

Hypothesis calls `register` when it is imported (entry point ``hypothesis``), so it is imported here
only when something is asked for.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Final

from ..values import InvalidValue

if TYPE_CHECKING:
    from hypothesis import settings

PROFILE: Final = "trio-supervisor"
"""The name under which Hypothesis has the profile."""

DEADLINE: Final = datetime.timedelta(milliseconds=500)


def profile(*, deadline: datetime.timedelta | None = DEADLINE, **options: Any) -> settings:
    """Return Hypothesis settings for tests whose examples run in containers.

    They are there as ``"trio-supervisor"`` too: ``settings.load_profile("trio-supervisor")``, or
    ``pytest --hypothesis-profile=trio-supervisor``.

    Args:
        deadline: how long an example may take, without its creates and deletes; None for any time.
        options: other ones, as for `hypothesis.settings`.

    Raises:
        InvalidValue: ``deadline`` is none.
    """
    from hypothesis import HealthCheck, settings  # noqa: PLC0415

    try:
        settings(deadline=deadline)
    except Exception as error:  # a ValueError for NaN
        raise InvalidValue(f"deadline can't be that: {error!s:.200}") from error
    options.setdefault("suppress_health_check", [HealthCheck.too_slow])
    options.setdefault("print_blob", True)
    return settings(deadline=deadline, **options)


def register() -> None:
    """Register the profile; Hypothesis calls it."""
    from hypothesis import settings  # noqa: PLC0415

    settings.register_profile(PROFILE, profile())
