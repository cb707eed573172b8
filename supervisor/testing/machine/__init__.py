"""The state machine: supervisors as actors, the rules of a play, and a model to compare with."""

from ... import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
