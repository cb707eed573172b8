"""How thoroughly the properties of what is on disk are tried."""

from hypothesis import settings

# Derandomized: the same examples each time. No deadline per example: a busy machine is no bug.
THOROUGH = settings(max_examples=200, deadline=None, derandomize=True)
BRIEF = settings(max_examples=50, deadline=None, derandomize=True)
