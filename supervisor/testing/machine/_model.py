"""The model of what each supervisor must show: no process, no file, no clock.

The machine reports to the model what was done. The model says what every open supervisor must show.
A supervising program is an actor here, and has a name.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

Truth = tuple[str, int]

KILLED: Truth = ("signalled", signal.SIGKILL)


class Word(enum.Enum):
    """The source from which the end of a process is known."""

    SHIM = "shim"
    KERNEL = "kernel"
    LOST = "inference"


class Shim(enum.Enum):
    """The state of a process's shim."""

    WORKS = "works"
    STOPPED = "is stopped"
    DEAD = "is dead"


@attrs.frozen
class Program:
    """What a process runs: the reaction to signals, and the exit code.

    Attributes:
        kind: ``"exit"`` exits at once. ``"stay"`` exits on SIGTERM with ``code``, and on SIGUSR1
            with ``code`` + 1. ``"stubborn"`` is the same, but ignores SIGTERM.
        code: 0 to 255.
    """

    kind: str
    code: int

    def truth(self, number: int, *, ready: bool) -> Truth | None:
        """Return how a signal ends the program; None if the program goes on.

        ``ready``: whether the process runs the program already, and isn't the runtime's process
        that waits for the start.
        """
        if number == signal.SIGKILL:
            return KILLED
        assert ready
        if number == signal.SIGTERM and self.kind != "stubborn":
            return "exited", self.code
        if number == signal.SIGUSR1:
            return "exited", (self.code + 1) & 255
        return None


@attrs.define(eq=False)
class Proc:
    """A shimmed process.

    Attributes:
        id: ``init``, or the exec's id.
        program: what the process runs.
        pid, shim_pid: pids on the host.
        shim: the state of the shim.
        certain: whether a supervisor that adopts the process can make certain of the pid.
        truth: how the process ended; None while the process runs.
        word: the source from which the end is known; None while no supervisor could know.
        settled: whether the result is recorded.
        owner: the actor that settles the process.
        lock: the actor that holds an exec's own lock.
        seen: the actors that list the process (an exec).
    """

    id: str
    program: Program
    pid: int = 0
    shim_pid: int = 0
    shim: Shim = Shim.WORKS
    certain: bool = True
    truth: Truth | None = None
    word: Word | None = None
    settled: bool = False
    owner: str | None = None
    lock: str | None = None
    seen: set[str] = attrs.field(factory=set)

    @property
    def pending(self) -> bool:
        """Whether the process has ended and no supervisor could know of the end yet."""
        return self.truth is not None and self.word is None


@attrs.define(eq=False)
class Box:
    """A container on disk.

    Attributes:
        started: whether the container was started.
        owner: the actor that holds the lock.
        unreadable: whether a file is so damaged that no supervisor can own the container.
        unfinished: whether the container looks as if the create was never finished.
        strays: pids of processes that no supervisor can know of any more.
    """

    id: str
    init: Proc
    started: bool = False
    owner: str | None = None
    unreadable: bool = False
    unfinished: bool = False
    execs: dict[str, Proc] = attrs.field(factory=dict)
    strays: set[int] = attrs.field(factory=set)

    @property
    def processes(self) -> dict[str, Proc]:
        """Init and the execs."""
        return {"init": self.init, **self.execs}

    @property
    def state(self) -> str:
        """The state that the owner shows."""
        if self.init.word is not None:
            return "stopped"
        return "running" if self.started else "created"


@attrs.define
class Model:
    """The containers below one root, and which actor lists which containers.

    Attributes:
        namespaces: whether processes are in namespaces and cgroups: then nothing survives init.
        kernel_tells: whether the kernel reports an exit status also to a process that isn't the
            parent.
        boxes: the containers on disk.
        views: for each open actor the listed containers, including deleted ones.
        broken: for each open actor the ids that are listed as broken.
    """

    namespaces: bool
    kernel_tells: bool
    boxes: dict[str, Box] = attrs.field(factory=dict)
    views: dict[str, dict[str, Box]] = attrs.field(factory=dict)
    broken: dict[str, set[str]] = attrs.field(factory=dict)

    # ---- actors -------------------------------------------------------------------------

    def opened(self, actor: str) -> None:
        """An actor has opened the root."""
        self.views[actor], self.broken[actor] = {}, set()
        self.adopted(actor)

    def adopted(self, actor: str) -> None:
        """An actor has adopted the containers without an owner, and lists the foreign ones."""
        view = self.views[actor]
        for id, box in list(view.items()):
            if self.boxes.get(id) is not box:
                del view[id]
        for box in list(self.boxes.values()):
            if box.owner == actor:
                continue
            if box.owner is not None:
                if box.id not in view:
                    view[box.id] = box
                    self._see_execs(box, actor)
            elif box.unreadable:
                self.broken[actor].add(box.id)
            elif box.unfinished:
                del self.boxes[box.id]
            else:
                view[box.id] = box
                box.owner = box.init.owner = actor
                for proc in box.processes.values():
                    if proc.shim is Shim.DEAD and not self.namespaces:
                        proc.certain = False  # neither the parent nor a cgroup proves the pid
                for proc in box.execs.values():
                    if actor in proc.seen:
                        proc.owner = actor
                self._see_execs(box, actor)
                self.settle(box)

    def _see_execs(self, box: Box, actor: str) -> None:
        for proc in box.execs.values():
            if actor not in proc.seen:
                proc.seen.add(actor)
                if proc.lock is None:
                    proc.lock = proc.owner = actor
        self.settle(box)

    def gone(self, actor: str) -> None:
        """An actor has closed, or was killed; the containers go on."""
        del self.views[actor], self.broken[actor]
        for box in self.boxes.values():
            if box.owner == actor:
                box.owner = None
            for proc in box.processes.values():
                proc.seen.discard(actor)
                if proc.owner == actor:
                    proc.owner = None
                if proc.lock == actor:
                    proc.lock = None

    # ---- containers and their processes ----------------------------------------------------

    def created(self, actor: str, id: str, program: Program) -> Box:
        """An actor has made a container."""
        box = Box(id, Proc("init", program, owner=actor), owner=actor)
        self.boxes[id] = self.views[actor][id] = box
        return box

    def started(self, box: Box) -> None:
        """A container was started."""
        box.started = True
        self._begun(box, box.init)

    def executed(self, actor: str, box: Box, id: str, program: Program) -> Proc:
        """An actor has begun an exec."""
        proc = box.execs[id] = Proc(id, program, owner=actor, lock=actor, seen={actor})
        self._begun(box, proc)
        return proc

    def _begun(self, box: Box, proc: Proc) -> None:
        if proc.program.kind == "exit":
            self.ended(box, proc, ("exited", proc.program.code))

    def ended(self, box: Box, proc: Proc, truth: Truth) -> None:
        """A process has ended."""
        if proc.truth is None:
            proc.truth = truth
            if proc is box.init and self.namespaces:
                for other in box.execs.values():
                    other.truth = other.truth or KILLED
                box.strays.clear()
        self.settle(box)

    def shim_killed(self, box: Box, proc: Proc) -> None:
        """The shim of a process was killed."""
        proc.shim = Shim.DEAD
        self.settle(box)

    def collected(self, actor: str, box: Box, id: str) -> None:
        """An actor has waited for the end of an exec."""
        proc = box.execs.get(id)
        if proc is not None and proc.word is not None:
            proc.seen.discard(actor)
            if proc.lock == actor:
                del box.execs[id]

    def is_listed(self, id: str) -> bool:
        """Whether a container of this id is on disk, or an actor lists one."""
        return id in self.boxes or any(id in view for view in self.views.values())

    def damaged(self, box: Box, proc: Proc, file: str, *, missing: bool) -> bool:
        """A file was damaged while no actor had the root open.

        Returns:
            Whether no supervisor can own the container any more.
        """
        if file in ("pid", "starttime", "shim"):
            proc.certain = False
        elif file == "result.json" and missing:
            proc.settled = False
            if proc.word is Word.KERNEL:
                proc.word = Word.LOST
        else:
            box.unreadable = True
        return box.unreadable

    def deleted(self, box: Box) -> None:
        """The owner has deleted a container; other actors still list the container."""
        assert box.owner is not None
        del self.boxes[box.id]
        self.views[box.owner].pop(box.id, None)
        self.broken[box.owner].discard(box.id)

    # ---- which supervisor can know how a process ended --------------------------------------

    def settle(self, box: Box) -> None:
        """Update which ends can be known now, and which further processes end through that."""
        for proc in box.execs.values():
            self._settle(box, proc)
        held_up = self.namespaces and any(proc.pending for proc in box.execs.values())
        if not held_up:
            self._settle(box, box.init)
            for proc in box.execs.values():  # the end of init may have ended the execs
                self._settle(box, proc)

    def _settle(self, box: Box, proc: Proc) -> None:
        if proc.word is None:
            if proc.shim is Shim.DEAD:
                self._settle_lost(box, proc)
            elif proc.truth is not None and proc.shim is Shim.WORKS:
                proc.word = Word.SHIM
            elif proc.truth is not None and proc.owner is not None and proc.certain:
                proc.shim, proc.word = Shim.DEAD, self._kernel()
        proc.settled = proc.settled or (proc.word is not None and proc.owner is not None)

    def _settle_lost(self, box: Box, proc: Proc) -> None:
        """Settle a process whose shim died without a record: the owner kills it, if possible."""
        if proc.truth is not None:
            proc.word = self._kernel() if proc.owner is not None and proc.certain else Word.LOST
        elif proc.owner is not None:
            proc.word = self._kernel() if proc.certain else Word.LOST
            if proc.certain or (proc is box.init and self.namespaces):
                self.ended(box, proc, KILLED)
            else:
                box.strays.add(proc.pid)

    def _kernel(self) -> Word:
        return Word.KERNEL if self.kernel_tells else Word.LOST

    # ---- what must exist -----------------------------------------------------------------

    def alive(self) -> set[int]:
        """Return the pids of all processes that may exist."""
        pids = set()
        for box in self.boxes.values():
            pids |= box.strays
            for proc in box.processes.values():
                if proc.word is None:
                    pids |= {proc.pid} | ({proc.shim_pid} if proc.shim is not Shim.DEAD else set())
        return pids

    def disagreements(self, actor: str, seen: Mapping[str, Any]) -> Iterator[str]:
        """Return how an actor's report of the supervisor differs from the model."""
        view, broken = self.views[actor], self.broken[actor]
        if set(seen["containers"]) != set(view) or set(seen["broken"]) != broken:
            yield f"{actor} lists {sorted(seen['containers'])} and, broken, {seen['broken']}; "
            yield f"expected: {sorted(view)} and {sorted(broken)}"
            return
        for id, box in view.items():
            told = seen["containers"][id]
            if box.owner == actor:
                yield from self._differs(actor, box, told)
            elif self.boxes.get(id) is box:
                yield from self._differs_foreign(actor, box, told)

    def _differs(self, actor: str, box: Box, told: Mapping[str, Any]) -> Iterator[str]:
        processes = {"init": box.init} | {
            id: proc for id, proc in box.execs.items() if actor in proc.seen
        }
        if told["foreign"] or told["state"] != box.state:
            yield f"{actor}'s {box.id} is {told['state']} (foreign: {told['foreign']}), "
            yield f"expected: {box.state}"
        if set(told["processes"]) != set(processes):
            yield f"{actor}'s {box.id} has {sorted(told['processes'])}, not {sorted(processes)}"
            return
        for id, proc in processes.items():
            if not matches(proc, told["processes"][id], strictly=proc.owner == actor):
                yield f"{actor}'s {box.id}/{id} ended {told['processes'][id]}, not {proc}"

    def _differs_foreign(self, actor: str, box: Box, told: Mapping[str, Any]) -> Iterator[str]:
        """Return how a foreign container differs from the model.

        A foreign container shows the same end. If the owner had to ask the kernel, the foreign
        container may show no end yet, or an unknown one.
        """
        if not told["foreign"]:
            yield f"{actor} owns {box.id}, whose owner must be {box.owner}"
        if box.init.word is Word.SHIM and told["state"] != "stopped":
            yield f"{actor}'s foreign {box.id} is {told['state']}, must be stopped"
        if box.init.truth is None and box.owner is not None and told["state"] != box.state:
            yield f"{actor}'s foreign {box.id} is {told['state']}, must be {box.state}"
        if not matches(box.init, told["processes"]["init"], strictly=False):
            yield f"{actor}'s foreign {box.id} ended {told['processes']['init']}, not {box.init}"


def matches(proc: Proc, told: Mapping[str, Any] | None, *, strictly: bool) -> bool:
    """Whether a status is the true one, or unknown where no supervisor could know."""
    if not strictly and proc.word is not Word.SHIM:
        return told is None or told["cause"] == "unknown" or _is_true(proc, told)
    if proc.word is None or told is None:
        return proc.word is None and told is None
    if told["source"] != proc.word.value:
        return False
    if proc.word is Word.LOST:
        return told["cause"] == "unknown" and ("record" in told["why"] or "lost" in told["why"])
    return _is_true(proc, told)


def _is_true(proc: Proc, told: Mapping[str, Any]) -> bool:
    if proc.truth is None:
        return False
    cause, number = proc.truth
    return told["cause"] == cause and number in (told["code"], told["signal"])
