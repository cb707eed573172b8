"""Cgroups, version 1 and 2: who is in them, what was killed for memory, and their removal."""

from ._hierarchies import Hierarchies

__all__ = ["Hierarchies"]
