"""Turn the operating system's *no space* and *no descriptor* into errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .._errors import scarcity


@contextlib.contextmanager
def scarce() -> Iterator[None]:
    """Raise DiskFull or TooManyFiles for an OSError that means it; let others through."""
    try:
        yield
    except OSError as error:
        known = scarcity(error)
        if known is error:
            raise
        raise known from error
