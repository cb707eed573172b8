"""What else happens to supervisors: damaged files, scarcity, and death in the middle of work."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from supervisor.testing.stateful import (
    BOXES,
    EXECS,
    PATIENCE_SECONDS,
    Box,
    Program,
    Refused,
    Setting,
    Shim,
    SupervisorMachine,
    Truth,
    is_stuck,
    lives,
    pick,
    picks,
    programs,
    runs,
    send,
)
from tests.crashes.ground import Ground, Starved

scarcities = st.one_of(
    st.tuples(st.just("descriptors"), st.integers(0, 24)),
    st.tuples(st.just("pages"), st.integers(0, 12)),
    st.tuples(st.just("names"), st.integers(0, 24)),
)
# The fake runtime's programs are the host's; the reason for a failure is looked up in a root
# filesystem without these programs.
SCARCE = {"InfrastructureError", "RuntimeFailed", "ShimError", "ProgramNotFound"}
_FILES = ("state.json", "process.json", "result.json", "pid", "starttime", "shim")
_DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "truncated": lambda sound: sound[: len(sound) // 2],
    "empty": lambda sound: b"",
    "garbage": lambda sound: b"\xff\0 garbage",
    "missing": None,
}


class Troubled(SupervisorMachine):
    """`SupervisorMachine` with more rules, and with ``subject.c`` as the program."""

    actor = Starved

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert isinstance(setting, Ground)
        self.ground = setting
        self.damaged: dict[str, bytes] = {}

    def truth(self, program: Program, number: int, *, ready: bool = True) -> Truth | None:
        """Return the truth: on SIGINT the subject ends by a fault of its own."""
        if number == signal.SIGINT:
            return "signalled", signal.SIGSEGV
        return super().truth(program, number, ready=ready)

    def finish(self) -> None:
        """Repair what was damaged once no supervisor has the root open."""
        for _, proc in self.procs():
            if proc.shim is Shim.STOPPED:
                send(proc.shim_pid, signal.SIGCONT)
        for actor in tuple(self.model.views):
            self.stage.close(actor)
        self.model.views.clear()
        for path, sound in self.damaged.items():
            with contextlib.suppress(FileNotFoundError), open(path, "wb") as file:
                file.write(sound)
        super().finish()

    # ---- files --------------------------------------------------------------------------

    @precondition(lambda self: self.model.boxes and not self.model.views)
    @rule(number=picks, which=picks, file=st.sampled_from(_FILES), how=st.sampled_from([*_DAMAGES]))
    def damage(self, number: int, which: int, file: str, how: str) -> None:
        """Damage a file of a container while no supervisor has the root open."""
        box = pick(number, self.model.boxes.values())
        proc = pick(which, box.processes.values()) if file in ("pid", "starttime") else box.init
        if how == "missing" and file not in ("pid", "result.json"):
            return  # another story: the directory looks like one that is just being made or removed
        if file in ("pid", "starttime", "shim"):
            if not lives(proc) or proc.shim is not Shim.WORKS:
                return
            if file == "shim" and self.model.namespaces:
                return  # the cgroup proves as much, but the shim can't be ended any more
        if box.unreadable or (file == "result.json" and not proc.settled):
            return
        path = self.stage.root / box.id / ("." if file == "state.json" else proc.id) / file
        sound = path.read_bytes()
        damage = _DAMAGES[how]
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage(sound))
        if self.model.damaged(box, proc, file, missing=damage is None):
            self.damaged[str(path)] = sound

    # ---- scarcity -----------------------------------------------------------------------

    @precondition(lambda self: len(self.model.views) == 1)
    @rule(
        what=st.sampled_from(("create", "start", "exec", "delete")),
        number=picks,
        name=picks,
        program=programs,
        scarcity=scarcities,
    )
    def scarce(
        self, what: str, number: int, name: int, program: Program, scarcity: tuple[str, int]
    ) -> None:
        """Do something with few descriptors, or on a disk that is nearly full.

        The operation works, or is undone and works on a second try: the state afterwards is the
        same.
        """
        target = self.target(what, number, name)
        kind, amount = scarcity
        full = kind != "descriptors"
        if target is None or (full and (not self.ground.is_disk or what == "start")):
            return
        actor, box, id = target
        command = self.command(what, box, id, program)
        if full:
            self.ground.fill(amount if kind == "pages" else 999, amount if kind == "names" else 999)
        try:
            self.stage.ask(
                actor,
                *([] if full else ["with_descriptors", amount]),
                *(command if full else [command]),
            )
        except Refused as error:
            if SCARCE.isdisjoint(error.names):
                raise
            self.ground.make_room()
            self.stage.ask(actor, *command)  # a broken one may be deleted again
        finally:
            self.ground.make_room()
        self.done(what, actor, box, id, program)

    def target(self, what: str, number: int, name: int) -> tuple[str, Box | None, str] | None:
        """Return an actor that may do this now, the container, and the container's name."""
        if what == "create":
            free = [id for id in BOXES if not self.model.is_listed(id)]
            return (pick(number, self.model.views), None, pick(name, free)) if free else None
        owned = [(a, b) for a, b in self.owned() if not is_stuck(b)]
        if what == "start":
            owned = [(a, b) for a, b in owned if b.state == "created"]
        if what == "exec":
            owned = [(a, b) for a, b in owned if runs(b) and set(b.execs) != set(EXECS)]
        if not owned:
            return None
        actor, box = pick(number, owned)
        free = [id for id in EXECS if id not in box.execs]
        return actor, box, pick(name, free) if what == "exec" else box.id

    def command(self, what: str, box: Box | None, id: str, program: Program) -> list[Any]:
        """Return the actor's command."""
        if what == "create":
            return ["create", id, self.stage.command(program)]
        assert box is not None
        if what == "exec":
            return ["exec", box.id, id, self.stage.command(program)]
        return [what, box.id, *([True] if what == "delete" else [])]

    def done(self, what: str, actor: str, box: Box | None, id: str, program: Program) -> None:
        """Take note of what was done."""
        if box is None:
            self.stage.find_pids(id, self.model.created(actor, id, program).init)
        elif what == "exec":
            self.executed(actor, box, id, program)
        elif what == "start":
            self.begun(box)
        else:
            self.model.deleted(box)

    # ---- death in the middle --------------------------------------------------------------

    @precondition(lambda self: self.model.boxes and self.model.views)
    @rule(
        what=st.sampled_from(("create", "start", "exec", "delete")),
        number=picks,
        name=picks,
        program=programs,
        milliseconds=st.integers(0, 30),
    )
    def killed_in(
        self, what: str, number: int, name: int, program: Program, milliseconds: int
    ) -> None:
        """SIGKILL a supervisor while it does something; the next supervisor finds that done, or
        not.

        Then it is done now: how far the killed supervisor came is a matter of time, and the state
        afterwards is not.
        """
        target = self.target(what, number, name)
        if target is None:
            return
        actor, box, id = target
        self.stage.tell(actor, *self.command(what, box, id, program))
        time.sleep(milliseconds / 1000)
        self.stage.torn = True
        self.stage.kill(actor)
        self.model.gone(actor)
        self.stage.open(actor)
        seen = self.look_at_own(actor, id if box is None else box.id)
        self.model.opened(actor)
        if not _was_done(what, id, seen):
            self.stage.ask(actor, *self.command(what, box, id, program))
        self.done(what, actor, box, id, program)

    def look_at_own(self, actor: str, id: str) -> dict[str, Any] | None:
        """Return what an actor shows of a container, as soon as the actor holds the container;
        None: the container is gone.

        A runtime call that a killed supervisor began may hold the container's lock until the call
        is done. A child that the supervisor was just spawning holds all its locks, until the child
        has become another program.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            shown: dict[str, dict[str, Any]] = self.stage.ask(actor, "look")["containers"]
            boxes = self.model.boxes
            held = [one for one in shown if one in boxes and boxes[one].owner is None]
            waiting = [one for one in {*held, id} if one in shown and shown[one]["foreign"]]
            if not waiting and (id in shown or not (self.stage.root / id).exists()):
                return shown.get(id)
            assert time.monotonic() < deadline, f"{waiting} stay foreign, or {id} unseen: {shown}"
            self.stage.ask(actor, "adopt")
            time.sleep(0.002)


def _was_done(what: str, id: str, seen: dict[str, Any] | None) -> bool:
    if what == "delete" or seen is None:
        return (what == "delete") == (seen is None)
    if what == "exec":
        return id in seen["processes"]
    return what == "create" or seen["state"] != "created"
