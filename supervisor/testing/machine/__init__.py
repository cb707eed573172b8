"""The state machine: actors that supervise, what may happen to them, and the model."""

from ... import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
