"""Play: the supervisors of a play, the model, and the comparison of both."""

from __future__ import annotations

import itertools
import logging
import signal
import time
from typing import Any, ClassVar

from ._actor import Actor
from ._model import Box, Model, Proc, Program, Shim, Truth
from ._stage import PATIENCE_SECONDS, Refused, Setting, Stage, send

try:
    from hypothesis.stateful import RuleBasedStateMachine, invariant
except ImportError as _missing:
    raise ImportError(
        "SupervisorMachine needs Hypothesis: pip install 'trio-supervisor[testing]'"
    ) from _missing


logger = logging.getLogger(__name__)

_names = itertools.count()


class Play(RuleBasedStateMachine):
    """Supervisors on one root, and their model; without rules."""

    actor: ClassVar[type[Actor]] = Actor

    def __init__(self, setting: Setting) -> None:
        """Begin a play; `run_machine` makes the object."""
        super().__init__()
        self.stage: Stage = Stage(setting, f"root-{next(_names)}")
        self.model: Model = Model(namespaces=setting.namespaces, kernel_tells=setting.kernel_tells)

    def truth(self, program: Program, number: int, *, ready: bool = True) -> Truth | None:
        """Return how a signal ends a program; None if the program goes on."""
        return program.truth(number, ready=ready)

    # ---- choices of a rule ---------------------------------------------------------------

    def listed(self) -> list[tuple[str, Box]]:
        """The containers on disk, as each actor lists them."""
        return [
            (actor, box)
            for actor, view in self.model.views.items()
            for box in view.values()
            if self.model.boxes.get(box.id) is box
        ]

    def owned(self) -> list[tuple[str, Box]]:
        """The listed containers whose owner is the actor."""
        return [(actor, box) for actor, box in self.listed() if box.owner == actor]

    def running(self) -> list[tuple[str, Box]]:
        """The running containers, each with an actor that may exec there."""
        return [(actor, box) for actor, box in self.listed() if runs(box)]

    def procs(self) -> list[tuple[Box, Proc]]:
        """All living processes on disk."""
        boxes = self.model.boxes.values()
        return [(box, proc) for box in boxes for proc in box.processes.values() if lives(proc)]

    def asked(self, proc: Proc) -> Truth:
        """Return how a process ends on SIGTERM."""
        truth = self.truth(proc.program, signal.SIGTERM)
        assert truth is not None
        return truth

    # ---- asking ---------------------------------------------------------------------------

    def ask(self, actor: str, *command: Any, refused: str | None = None) -> bool:
        """Send an actor a command; return False if the command was refused, as expected."""
        try:
            self.stage.ask(actor, *command)
        except Refused as error:
            if refused is None or refused not in error.names:
                raise
            return False
        assert refused is None, f"{command} must raise {refused}"
        return True

    # ---- comparing ------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """Every supervisor shows what the model says, and nothing exists that shouldn't."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while differences := self.differences():
            if time.monotonic() > deadline:
                logger.error("differences: %s", differences)
                raise AssertionError("\n".join(differences))
            time.sleep(0.002)

    def differences(self) -> list[str]:
        """Return how the supervisors and the machine differ from the model."""
        found: list[str] = []
        for actor in self.model.views:
            found += self.model.disagreements(actor, self.stage.ask(actor, "look"))
        return found or [*self.stage.leftovers(self.model.alive(), set(self.model.boxes))]

    def teardown(self) -> None:
        """Delete everything, and check that nothing is left."""
        try:
            self.finish()
        finally:
            self.stage.finish()

    def finish(self) -> None:
        """End the play."""
        for _, proc in self.procs():
            if proc.shim is Shim.STOPPED:
                send(proc.shim_pid, signal.SIGCONT)
        for actor in tuple(self.model.views):
            self.stage.close(actor)
        self.model.boxes.clear()
        self.stage.open("last")
        for id in self.stage.ask("last", "look")["containers"]:
            self.stage.ask("last", "delete", id, True)
        self.stage.close("last")
        self.model.views.clear()
        self.agree()


def lives(proc: Proc) -> bool:
    """Whether a process runs, and no supervisor counts the process as ended."""
    return proc.truth is None and proc.word is None


def runs(box: Box) -> bool:
    """Whether a container runs."""
    return box.state == "running"


def reachable(proc: Proc) -> bool:
    """Whether a supervisor can reach a process: by pid, or through the shim."""
    return proc.certain or proc.shim is Shim.WORKS


def is_stuck(box: Box) -> bool:
    """Whether the container can't be ended now, or its end can't be seen."""
    procs = box.processes.values()
    return any(p.pending or (p.shim is Shim.STOPPED and p.owner is None) for p in procs)
