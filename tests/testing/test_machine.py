"""SupervisorMachine finds faults, on any runtime, and users can extend it."""

from __future__ import annotations

import os
import signal
from glob import glob
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from supervisor.cgroups import Hierarchies
from supervisor.testing._processes import state_of
from supervisor.testing.machine import SupervisorMachine, run_machine
from supervisor.testing.machine._stage import ActorDied, until
from supervisor.testing.stateful import Actor, Box, Program, open_setting, pick, picks
from tests.support.runtimes import Choice, needs_root

SHORT = settings(
    max_examples=2,
    stateful_step_count=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Labelling(Actor):
    """A supervising program that also makes containers with labels, and reports these."""

    async def do_create_labelled(self, id: str, args: list[str], labels: dict[str, str]) -> None:
        """Create a container with labels."""
        self.boxes[id] = await self.supervisor.create(
            id, self.bundle, args=args, stdin=self.stdin, labels=labels
        )

    async def do_labels(self) -> dict[str, dict[str, str]]:
        """Return the labels of all containers."""
        return {id: dict(box.labels) for id, box in self.supervisor.items()}


class Labelled(SupervisorMachine):
    """Labels survive whatever happens to their container's supervisors."""

    actor = Labelling
    checked = 0
    lost = False

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.labels: dict[Box, dict[str, str]] = {}

    @precondition(lambda self: self.model.views)
    @rule(number=picks, labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")))
    def create_labelled(self, number: int, labels: dict[str, str]) -> None:
        """Create a container with labels."""
        actor = pick(number, self.model.views)
        if self.model.is_listed("labelled"):
            return
        program = Program("stay", 5)
        self.ask(actor, "create_labelled", "labelled", self.stage.command(program), labels)
        box = self.model.created(actor, "labelled", program)
        self.stage.find_pids("labelled", box.init)
        self.labels[box] = {} if self.lost else labels

    @invariant()
    def labels_are_kept(self) -> None:
        """Every supervisor that lists a container reports its labels."""
        for actor, view in self.model.views.items():
            box = view.get("labelled")
            if box is not None and self.model.boxes.get(box.id) is box:
                told = self.stage.ask(actor, "labels")["labelled"]
                assert told == self.labels[box], f"{actor} tells {told}"
                type(self).checked += 1


@needs_root
@pytest.mark.runtimes("fake", "crun")
def test_extended(choice: Choice) -> None:
    """Rules, invariants and commands of a user's own work beside the existing ones.

    Nothing is left, not even the cgroup that all plays' cgroups were in.
    """
    Labelled.checked = 0
    run_machine(Labelled, runtime=choice.runtime(), settings=SHORT)
    assert Labelled.checked > 0
    parents = Hierarchies.discover().directories("/")
    assert not [
        left for path in parents for left in glob(f"{path}/trio-supervisor-machine-{os.getpid()}-*")
    ]


@pytest.mark.runtimes("fake")
def test_finds(choice: Choice) -> None:
    """A model that contradicts the facts is found out."""

    class Losing(Labelled):
        lost = True

    with open_setting(choice.runtime(), actor=Losing.actor) as setting:
        machine = Losing(setting)
        machine.open(actor="a")
        machine.agree()
        machine.labels_are_kept()
        machine.create_labelled(number=0, labels={"a": "x"})
        machine.agree()
        with pytest.raises(AssertionError, match=r"a tells \{'a': 'x'\}"):
            machine.labels_are_kept()
        machine.teardown()


@pytest.mark.runtimes("fake")
def test_leftovers(choice: Choice) -> None:
    """What has no owner is named: a directory, and a process that was left."""
    with open_setting(choice.runtime()) as setting:
        machine = SupervisorMachine(setting)
        machine.open(actor="a")
        machine.create(number=0, id="c0", program=Program("stay", 3))
        machine.start(number=0)
        machine.agree()
        forgotten = machine.model.boxes.pop("c0")
        left = list(machine.stage.leftovers(set(), set()))
        assert "directory c0" in left
        assert any(line.startswith(f"process {forgotten.init.pid} ") for line in left)
        machine.model.boxes["c0"] = forgotten
        machine.teardown()


@pytest.mark.runtimes("fake")
def test_a_supervisor_that_dies(choice: Choice) -> None:
    """A supervisor that dies unkilled is reported, whatever it is asked next, and no other process
    is left."""
    with open_setting(choice.runtime()) as setting:
        machine = SupervisorMachine(setting)
        machine.open(actor="a")
        machine.open(actor="b")
        pid, _ = machine.stage.actors["a"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: state_of(pid) == "", "it is gone")
        for _ in range(2):
            with pytest.raises(ActorDied, match="a ended"):
                machine.agree()
        machine.stage.finish()
        assert not setting.cradle.descendants()
