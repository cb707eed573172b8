"""Runtimes for tests: `check_runtime`, and runtimes that run on the host or go wrong."""

from ... import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
