"""Whether a descriptor is left, where libc doesn't say."""

from __future__ import annotations

import os

from ..values import raise_if_scarce


def require_descriptor() -> None:
    """Fail if no file can be opened: libc's look-ups report that like an unknown name.

    Raises:
        TooManyFiles: no descriptor is left.
    """
    try:
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise_if_scarce(error)
        raise
