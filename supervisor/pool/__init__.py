"""Containers that are made ahead, to be taken for one run each."""

from ._pool import (
    ContainerPool,
    PoolInput,
    PoolStatistics,
)

__all__ = [
    "ContainerPool",
    "PoolInput",
    "PoolStatistics",
]
