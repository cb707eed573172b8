"""The state machine, and what its subclasses and their rules need. Described in docs/testing.md.

Needs Hypothesis, an optional dependency: ``pip install trio-supervisor[testing]``.
"""

from ._actor import Actor
from ._machine import (
    BOXES,
    EXECS,
    SIGNALS,
    SupervisorMachine,
    actors,
    is_stuck,
    lives,
    open_setting,
    pick,
    picks,
    programs,
    run_machine,
    runs,
)
from ._model import KILLED, Box, Model, Proc, Program, Shim, Truth, Word
from ._stage import PATIENCE_SECONDS, Refused, Setting, Stage, send

__all__ = [
    "BOXES",
    "EXECS",
    "KILLED",
    "PATIENCE_SECONDS",
    "SIGNALS",
    "Actor",
    "Box",
    "Model",
    "Proc",
    "Program",
    "Refused",
    "Setting",
    "Shim",
    "Stage",
    "SupervisorMachine",
    "Truth",
    "Word",
    "actors",
    "is_stuck",
    "lives",
    "open_setting",
    "pick",
    "picks",
    "programs",
    "run_machine",
    "runs",
    "send",
]
