"""Descriptors held back, so that an operation that runs out of them can still be undone."""

from __future__ import annotations

import os
from typing import Self

from ..values import raise_if_scarce
from ._descriptors import lifted


class Reserve:
    """Some descriptors, opened before an operation begins and closed for the clean-up."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    @classmethod
    def take(cls, count: int, *, container: str | None = None) -> Reserve:
        """Open ``count`` descriptors.

        Raises:
            TooManyFiles: not so many are left; none stays open.
        """
        reserve = cls([])
        try:
            for _ in range(count):
                reserve._fds.append(lifted(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)))
        except OSError as error:
            reserve.release()
            raise_if_scarce(error, container=container)
            raise
        return reserve

    def release(self) -> None:
        """Close the descriptors. A second call does nothing."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
