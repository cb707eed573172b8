"""The rules of `SupervisorMachine`: operations, faults, and what the model says of them.

Hypothesis makes all choices, so the printed steps of a failing play can be repeated. The
supervisors live in processes of their own, the actors ``a`` and ``b``, which open the same root.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import TypeVar

from ._comparing import Play, is_stuck, reachable, runs
from ._model import KILLED, Box, Program, Shim, Word
from ._stage import send

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import precondition, rule
except ImportError as _missing:
    raise ImportError(
        "SupervisorMachine needs Hypothesis: pip install 'trio-supervisor[testing]'"
    ) from _missing

BOXES = ("c0", "c1", "c2")
EXECS = ("e0", "e1")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGKILL)

actors: st.SearchStrategy[str] = st.sampled_from(("a", "b"))
picks: st.SearchStrategy[int] = st.integers(0, 11)
programs: st.SearchStrategy[Program] = st.builds(
    Program, st.sampled_from(("stay", "stay", "stubborn", "exit")), st.integers(0, 255)
)

_T = TypeVar("_T")


def pick(number: int, options: Iterable[_T]) -> _T:
    """Return one of the options, the same for the same number and options."""
    options = list(options)
    return options[number % len(options)]


class SupervisorMachine(Play):
    """Drives real supervisors beside a model. Give this class, or a subclass, to `run_machine`.

    The rules open, close and kill supervisors on one root, and create, start, exec, signal, stop,
    kill, delete and wait. Other rules kill and stop shims and processes from outside. Each rule
    returns when everything is settled. Then every supervisor must show what the model says, and
    every process, directory and cgroup must belong to a container; at the end of a play nothing may
    be left.

    A subclass adds rules and invariants as in any `RuleBasedStateMachine`. A rule chooses a
    container with `pick` among those of `listed`, `owned` or `running`, sends an actor a command
    with `ask`, and reports to ``model`` what was done. To remove a rule, override the rule with
    None.

    Attributes:
        stage: the root and its actors.
        model: what every supervisor must show.
        actor: the class of the supervising programs; a subclass of `Actor` with more commands.
    """

    # ---- supervisors ----------------------------------------------------------------------

    @precondition(lambda self: len(self.model.views) < 2)
    @rule(actor=actors)
    def open(self, actor: str) -> None:
        """Open a supervisor: the first, or a second one on the same root."""
        if actor in self.model.views:
            actor = "b" if actor == "a" else "a"
        self.stage.open(actor)
        self.model.opened(actor)

    @precondition(lambda self: self.model.views and self.model.boxes)
    @rule(number=picks)
    def close(self, number: int) -> None:
        """Close a supervisor."""
        actor = pick(number, self.model.views)
        self.stage.close(actor)
        self.model.gone(actor)

    @precondition(lambda self: self.model.views and self.model.boxes)
    @rule(number=picks)
    def kill_supervisor(self, number: int) -> None:
        """SIGKILL a supervisor that does nothing at that moment."""
        actor = pick(number, self.model.views)
        self.stage.kill(actor)
        self.model.gone(actor)

    @precondition(lambda self: len(self.owned()) < sum(map(len, self.model.views.values())))
    @rule(number=picks)
    def adopt(self, number: int) -> None:
        """Have a supervisor adopt containers."""
        actor = pick(number, self.model.views)
        self.stage.ask(actor, "adopt")
        self.model.adopted(actor)

    # ---- containers -----------------------------------------------------------------------

    @precondition(lambda self: self.model.views)
    @rule(number=picks, id=st.sampled_from(BOXES), program=programs)
    def create(self, number: int, id: str, program: Program) -> None:
        """Create a container; an id in use is refused."""
        actor = pick(number, self.model.views)
        taken = id in self.model.boxes or id in self.model.views[actor]
        command = ("create", id, self.stage.command(program))
        if not self.ask(actor, *command, refused="ContainerExists" if taken else None):
            return
        box = self.model.created(actor, id, program)
        self.stage.find_pids(id, box.init)

    @precondition(lambda self: self.listed())
    @rule(number=picks)
    def start(self, number: int) -> None:
        """Start a container, or be refused."""
        actor, box = pick(number, self.listed())
        if self.ask(actor, "start", box.id, refused=self.why_no_start(actor, box)):
            self.begun(box)

    def why_no_start(self, actor: str, box: Box) -> str | None:
        """Return the name of the error that start must raise; None if start must succeed."""
        if box.owner != actor:
            return "ContainerLocked"
        if box.state == "stopped" and not box.started and box.init.word is not Word.SHIM:
            return "ShimExited"
        return None if box.state == "created" else "IllegalTransition"

    def begun(self, box: Box) -> None:
        """Note a start in the model."""
        self.model.started(box)
        self.stage.await_ready(box.init)

    @precondition(lambda self: self.listed())
    @rule(number=picks, id=st.sampled_from(EXECS), program=programs)
    def exec(self, number: int, id: str, program: Program) -> None:
        """Run a further program; from a second supervisor too."""
        actor, box = pick(number, self.listed())
        if id in box.execs:
            return
        refused = None if runs(box) else "IllegalTransition"
        if refused is None and (box.init.pending or box.owner is None):
            return
        if self.ask(actor, "exec", box.id, id, self.stage.command(program), refused=refused):
            self.executed(actor, box, id, program)

    def executed(self, actor: str, box: Box, id: str, program: Program) -> None:
        """Note an exec in the model."""
        proc = self.model.executed(actor, box, id, program)
        self.stage.find_pids(box.id, proc)
        self.stage.await_ready(proc)

    @precondition(lambda self: self.listed())
    @rule(number=picks, which=picks, what=st.sampled_from(SIGNALS))
    def signal(self, number: int, which: int, what: signal.Signals) -> None:
        """Send a signal through a supervisor."""
        actor, box = pick(number, self.listed())
        seen = [p for p in box.processes.values() if p is box.init or actor in p.seen]
        proc = pick(which, seen)
        if proc.word is not None:
            if proc.owner == actor:
                self.ask(actor, "signal", box.id, proc.id, what, refused="ProcessEnded")
            return
        ready = proc is not box.init or box.started
        if proc.pending or not (ready or what == signal.SIGKILL) or not reachable(proc):
            return
        if ready:
            self.stage.await_ready(proc)  # the trap of an earlier signal may still be running
        self.stage.ask(actor, "signal", box.id, proc.id, what)
        truth = self.truth(proc.program, what, ready=ready)
        if truth is not None:
            self.model.ended(box, proc, truth)

    @precondition(lambda self: self.listed())
    @rule(number=picks)
    def stop(self, number: int) -> None:
        """Stop a container: with SIGTERM, or by force if the program ignores SIGTERM."""
        actor, box = pick(number, self.listed())
        if is_stuck(box):
            return
        deaf = box.init.program.kind == "stubborn" or not box.started
        was = box.init.word
        if box.owner != actor and was is not None:
            return  # a foreign supervisor may know less of the end
        if was is None and not deaf:
            self.stage.await_ready(box.init)
        escalated = self.stage.ask(actor, "stop", box.id, 0.02 if deaf else 20)
        assert escalated == (was is None and deaf)
        if was is None:
            self.model.ended(box, box.init, KILLED if deaf else self.asked(box.init))

    @precondition(lambda self: self.owned())
    @rule(number=picks)
    def kill(self, number: int) -> None:
        """Kill everything in a container."""
        actor, box = pick(number, self.owned())
        if is_stuck(box):
            return
        if self.ask(actor, "kill", box.id, refused=box.init.word and "ProcessEnded"):
            self.model.ended(box, box.init, KILLED)

    @precondition(lambda self: self.listed())
    @rule(number=picks, force=st.booleans())
    def delete(self, number: int, force: bool) -> None:
        """Delete a container, or be refused."""
        actor, box = pick(number, self.listed())
        refused = None
        if box.owner != actor:
            refused = "ContainerLocked"
        elif box.state == "running" and not force:
            refused = "IllegalTransition"
        if self.ask(actor, "delete", box.id, force, refused=refused):
            self.model.deleted(box)

    @precondition(lambda self: self.listed())
    @rule(number=picks, which=picks)
    def wait(self, number: int, which: int) -> None:
        """Wait for the end of a process; an exec is forgotten then."""
        actor, box = pick(number, self.listed())
        ended = [
            proc
            for proc in box.processes.values()
            if proc.word is not None and (proc is box.init or actor in proc.seen)
        ]
        if not ended:
            return
        proc = pick(which, ended)
        self.stage.ask(actor, "wait", box.id, proc.id)
        self.model.collected(actor, box, proc.id)

    # ---- faults -------------------------------------------------------------------------------

    @precondition(lambda self: self.procs())
    @rule(number=picks)
    def kill_shim(self, number: int) -> None:
        """SIGKILL a shim."""
        box, proc = pick(number, self.procs())
        unseen = box.owner is None and any(box.id in v for v in self.model.views.values())
        bare = not self.model.namespaces
        if proc.shim is Shim.DEAD or unseen or (bare and not proc.certain):
            return
        if bare and proc is not box.init and proc.owner is None:
            return  # nothing could find the exec any more: there is no cgroup
        send(proc.shim_pid, signal.SIGKILL)
        self.model.shim_killed(box, proc)

    @precondition(lambda self: self.procs())
    @rule(number=picks)
    def kill_process(self, number: int) -> None:
        """SIGKILL a container's process from outside."""
        box, proc = pick(number, self.procs())
        send(proc.pid, signal.SIGKILL)
        self.model.ended(box, proc, KILLED)

    @precondition(lambda self: self.procs())
    @rule(number=picks)
    def stop_shim(self, number: int) -> None:
        """SIGSTOP a shim."""
        _, proc = pick(number, self.procs())
        if proc.shim is Shim.WORKS and proc.certain:
            send(proc.shim_pid, signal.SIGSTOP)
            proc.shim = Shim.STOPPED

    @precondition(lambda self: any(p.shim is Shim.STOPPED for _, p in self.procs()))
    @rule(number=picks)
    def continue_shim(self, number: int) -> None:
        """SIGCONT a stopped shim."""
        stopped = [(b, p) for b, p in self.procs() if p.shim is Shim.STOPPED]
        box, proc = pick(number, stopped)
        send(proc.shim_pid, signal.SIGCONT)
        proc.shim = Shim.WORKS
        self.model.settle(box)
