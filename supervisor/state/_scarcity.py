"""Turn the operating system's *no space* and *no descriptor* into errors of ours."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from .._errors import scarcity


class _Scarce:
    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            known = scarcity(error)
            if known is not error:
                raise known from error


_SCARCE: Final = _Scarce()


def scarce() -> _Scarce:
    """Raise DiskFull or TooManyFiles for an OSError that means it; let others through."""
    return _SCARCE
