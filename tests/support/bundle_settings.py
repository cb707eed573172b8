"""How thoroughly the properties of bundles are tried."""

from hypothesis import HealthCheck, settings

# Derandomized: the same examples each time. No deadline per example: a busy machine is no bug.
# The directory that a fixture makes is written anew by every example.
THOROUGH = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BRIEF = settings(THOROUGH, max_examples=100)
