"""Runtimes for tests: `check_runtime`, a runtime without isolation, and one with faults."""

from ... import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
