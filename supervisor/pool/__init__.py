"""Containers that are made ahead, to be taken for one run each."""

from ._entry import (
    TakeOptions,
)
from ._pool import (
    ContainerPool,
    PoolRunOptions,
    PoolStatistics,
)

__all__ = [
    "ContainerPool",
    "PoolRunOptions",
    "PoolStatistics",
    "TakeOptions",
]
