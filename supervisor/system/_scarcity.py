"""Turn the operating system's *no space* and *no descriptor* into our errors."""

from __future__ import annotations

import os
from typing import Final

from ..values import InfrastructureError, scarcity


class _Scarce:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            known = scarcity(error)
            if known is not error:
                raise known from error


class _Lenient(_Scarce):
    def __exit__(  # type: ignore[override]  # no code uses one as the other
        self, kind: object, error: BaseException | None, traceback: object
    ) -> bool:
        super().__exit__(kind, error, traceback)
        return isinstance(error, OSError) and not isinstance(error, InfrastructureError)


_SCARCE: Final = _Scarce()
_LENIENT: Final = _Lenient()


def scarce() -> _Scarce:
    """Raise DiskFull or TooManyFiles for an OSError that means one of them; let others pass."""
    return _SCARCE


def lenient() -> _Lenient:
    """Suppress any other OSError: what couldn't be looked at may be there."""
    return _LENIENT


def require_descriptor() -> None:
    """Fail if no file can be opened: libc's look-ups report that like an unknown name.

    Raises:
        TooManyFiles: no descriptor is left.
    """
    with scarce():
        os.close(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
