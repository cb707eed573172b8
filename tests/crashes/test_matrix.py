"""The crossed matrix of deaths: which process is hit, at which moment, and how.

A program takes one container through its life on the fake runtime, which reports a moment and waits
there. One process is hit; the runtime goes on. Then the root is opened again, and what is found is
the truth, or nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from supervisor import Bundle, Cause, Container, ExitStatus, Source, State, Supervisor
from supervisor.state import read_exit_status
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support import leaks
from tests.support.containers import kernel_tells, shim_of, state_of
from tests.support.forker import Forker, Program
from tests.support.runtimes import fake

pytestmark = pytest.mark.runtimes("fake")

CELL_SECONDS = 20.0
PATIENT = {"shim": 0.3, "kill": 5.0}
HASTY = {
    ("shim", "create"): {"create": 1.0},
    ("runtime", "create"): {"create": 1.0},
    ("runtime", "start"): {"start": 1.0},
    ("runtime", "delete"): {"call": 1.0},
}
"""The wait for a stopped process, in a step that can't go on then."""

MOMENTS = {
    "before the pid": "create-before-pid",
    "before the report": "create-after-pid",
    "in start": "start",
    "in start, when it runs": "start-after",
    "after the exit": None,
    "in delete": "delete",
}
WHO = ("shim", "runtime", "process", "supervisor")
HOW = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)

IMPOSSIBLE = {
    ("runtime", "after the exit"): "no runtime is called then",
    ("process", "after the exit"): "it has ended",
    ("process", "in delete"): "it has ended before the runtime is called",
}

CELLS = [
    pytest.param(who, when, how, id=f"{who}-{when}-{how.name}".replace(" ", "_"))
    for when, who, how in itertools.product(MOMENTS, WHO, HOW)
    if (who, when) not in IMPOSSIBLE
]

ERRORS = {
    ("shim", "create", signal.SIGKILL): "ShimExited",
    ("shim", "create", signal.SIGSTOP): "CreateTimeout",
    ("shim", "start", signal.SIGKILL): "ShimExited",
    ("runtime", "create", signal.SIGKILL): "RuntimeFailed",
    ("runtime", "create", signal.SIGSEGV): "RuntimeFailed",
    ("runtime", "create", signal.SIGSTOP): "CreateTimeout",
    ("runtime", "start", signal.SIGKILL): "RuntimeFailed",
    ("runtime", "start", signal.SIGSEGV): "RuntimeFailed",
    ("runtime", "start", signal.SIGSTOP): "RuntimeTimeout",
}
"""The error of the step that was under way. SIGSEGV doesn't reach a shim: the shim blocks it."""


def step_at(when: str) -> str:
    """Return the step of the program that is under way at a moment."""
    return (MOMENTS[when] or "wait").split("-")[0]


@attrs.frozen(kw_only=True)
class Cell:
    """One combination, under way.

    Attributes:
        who, when, how: the combination.
        root: the supervisor's.
        gate: while this file is there, the runtime waits at its moment.
        told: the file that gets the runtime's pid at the moment.
        program: the supervising program.
    """

    who: str
    when: str
    how: signal.Signals
    root: Path
    gate: Path
    told: Path
    program: Program

    @property
    def step(self) -> str:
        """The step of the program that is under way."""
        return step_at(self.when)

    @property
    def process(self) -> int:
        """The pid of the container's process, as the runtime knows it."""
        return int((self.root / ".runtime/a/state").read_text())

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait; what is left to us meanwhile, we reap, as init would."""
        with trio.move_on_after(leaks.PATIENCE_SECONDS):
            while True:
                leaks.reap_strangers()
                if condition():
                    return
                await trio.sleep(0.002)
        raise AssertionError(f"waited in vain for {what}: {self.program.entries()}")

    async def reach(self) -> None:
        """Return when the moment has come."""
        if MOMENTS[self.when] is not None:
            if self.step == "delete":
                await self.until(lambda: self.program.said("wait begins"), "wait")
                self.let_it_exit()
            await self.until(self.told.exists, f"the moment {self.when}")
        elif self.who == "supervisor":
            await self.until(lambda: self.program.said("wait begins"), "wait")
            self.program.stop()  # the program must not settle the status first
            self.let_it_exit()
            record = str(self.root / "a/init/exitStatus")
            await self.until(lambda: read_exit_status(record), "the record")
        else:
            await self.until(lambda: self.program.said("wait begins"), "wait")
            self.let_it_exit()
            await self.until(lambda: self.program.said("wait"), "the end")

    def hit(self) -> None:
        """Send the signal."""
        if self.who == "supervisor":
            if self.how is signal.SIGSTOP:
                self.program.stop()
                return
            leaks.STRANGERS.update(leaks.descendants(self.program.pid))
            self.program.signal(self.how)
            self.program.signal(signal.SIGCONT)
            return
        pids: dict[str, Callable[[], int]] = {
            "shim": lambda: shim_of(self.root / "a/init"),
            "runtime": lambda: int(self.told.read_text()),
            "process": lambda: self.process,
        }
        os.kill(pids[self.who](), self.how)

    def let_it_exit(self) -> None:
        """Give the program in the container some input: the program exits with 42."""
        fd = os.open(self.root / "a/init/stdin", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"go\n")
        os.close(fd)

    def open_gate(self) -> None:
        """Let the runtime go on."""
        with contextlib.suppress(FileNotFoundError):
            self.gate.unlink()


@pytest.fixture
def cell(
    who: str,
    when: str,
    how: signal.Signals,
    root: Path,
    workdir: Path,
    bundle: MakeBundle,
    cgroup_parent: str,
    forker: Forker,
) -> Iterator[Cell]:
    """The program, on the way to the moment."""
    gate, told = workdir / "gate", workdir / "told"
    gate.touch()
    moment = MOMENTS[when]
    faults = [] if moment is None else [f"tell-{moment}:{told}", f"hang-{moment}-while:{gate}"]
    runtime = fake(*faults)
    hasty = HASTY.get((who, step_at(when)), {}) if how is signal.SIGSTOP else {}
    steps = ["create", "start", "wait", "delete"]
    if when != "in delete":
        steps.remove("delete")
    life = {
        "runtime": [runtime.path, *runtime.args],
        "root": str(root),
        "cgroup_parent": cgroup_parent,
        "bundle": _bundle(bundle).path,
        "deadlines": PATIENT | hasty,
        "steps": steps,
    }
    with forker.program("tests.crashes.plays:life", life, temporary=workdir) as program:
        yield Cell(who=who, when=when, how=how, root=root, gate=gate, told=told, program=program)


def _bundle(bundle: MakeBundle) -> Bundle:
    # Unread output keeps the shim after the program's end.
    return bundle("sh", "-c", "echo unread; read x; exit 42")


@pytest.mark.parametrize(("who", "when", "how"), CELLS)
async def test_cell(
    cell: Cell,
    supervisor: OpenSupervisor,
    root: Path,
    nothing_left: NothingLeft,
) -> None:
    """Whichever process dies, at any moment and in any way, the next open finds the truth in
    bounded time."""
    with trio.fail_after(CELL_SECONDS):
        await cell.reach()
        cell.hit()
        if cell.who == "supervisor" and cell.how is not signal.SIGSTOP:
            await cell.until(lambda: not cell.program.alive(), "its death")
        elif cell.who == "supervisor":
            await _look_beside(cell, supervisor)
            cell.open_gate()
            cell.program.signal(signal.SIGCONT)
            await _finish(cell)
        else:
            cell.open_gate()
            await _finish(cell)
        async with supervisor(root, deadlines=None) as sup:
            cell.open_gate()
            await _become_ours(sup)
            await _check(cell, sup)
        await nothing_left()


async def _look_beside(cell: Cell, supervisor: OpenSupervisor) -> None:
    """A stopped supervisor is alive: the container is foreign, and another supervisor leaves it
    alone."""
    async with supervisor(cell.root) as sup:
        assert all(box.foreign for box in sup.values()) and not sup.broken
        if cell.step != "create":
            assert list(sup) == ["a"]


async def _finish(cell: Cell) -> None:
    """Wait until the program has done all steps: the results must be right, and in time."""
    said = cell.program.said
    expected = ERRORS.get((cell.who, cell.step, cell.how))
    await cell.until(lambda: said(cell.step) or cell.step == "wait", f"the end of {cell.step}")
    entry = said(cell.step)
    if cell.step == "start" and expected is not None:
        # The death may be seen before or after the runtime is done, which had nothing left to do.
        assert entry is None or entry["error"] in (None, expected), entry
    elif entry is not None:
        assert entry["error"] == expected, entry
    if entry is not None and entry["error"] is None and cell.step in ("create", "start"):
        await _let_it_end(cell)
    await cell.until(lambda: not cell.program.alive(), "the end of the program")
    told = said("status")
    if told is not None:
        signals = _signals(cell)
        assert (told["code"], told["signal"]) in [
            (42, None),
            *((None, one) for one in signals),
        ] or (cell.who == "shim" and not kernel_tells() and "shim was lost" in told["text"]), told


async def _let_it_end(cell: Cell) -> None:
    """Have the program in the container end, as the other program expects."""
    said = cell.program.said
    await cell.until(lambda: said("wait begins") or not cell.program.alive(), "wait")
    if said("wait begins") is None or said("wait") is not None:
        return
    if cell.who == "process" and cell.how is signal.SIGSTOP:
        os.kill(cell.process, signal.SIGKILL)
        return
    with contextlib.suppress(OSError):  # the program may have ended already
        cell.let_it_exit()


def _signals(cell: Cell) -> set[int]:
    """Return the signals that the process may have died of."""
    if cell.who == "process":
        return {signal.SIGKILL if cell.how is signal.SIGSTOP else cell.how}
    return {signal.SIGKILL} if cell.who == "shim" else set()


async def _become_ours(sup: Supervisor) -> None:
    """Wait until a killed supervisor's call of the runtime has ended."""
    with trio.fail_after(leaks.PATIENCE_SECONDS):
        while any(box.foreign for box in sup.values()):
            await sup.adopt()
            await trio.sleep(0.005)


async def _check(cell: Cell, sup: Supervisor) -> None:
    """Check that the container is there with its true state, or gone."""
    assert not sup.broken
    if "a" not in sup:
        created = cell.program.said("create")
        assert cell.step in ("create", "delete")
        assert cell.step == "delete" or created is None or created["error"] is not None
        return
    box = sup["a"]
    _check_state(cell, box)
    if box.state is State.CREATED:
        await box.start()
    if box.status is None:
        cell.let_it_exit()
    _check_status(cell, await box.wait())
    await box.delete(force=True)


def _check_state(cell: Cell, box: Container) -> None:
    alive = state_of(cell.process) not in ("Z", "")
    waits = (cell.root / ".runtime/a/exec.fifo").exists()
    true = State.STOPPED if not alive else State.CREATED if waits else State.RUNNING
    assert box.state is true, (box.state, true)
    assert (box.status is None) == alive


def _check_status(cell: Cell, status: ExitStatus) -> None:
    told = cell.program.said("status")
    if told is not None:  # a settled status is final
        assert (status.code, status.signal) == (told["code"], told["signal"])
    if cell.who == "shim" and status.source is Source.INFERENCE:
        assert not kernel_tells() and status.cause is Cause.UNKNOWN
        assert status.why is not None and "shim was lost" in status.why
        return
    died: list[tuple[int | None, Any]] = [(42, None), *((None, one) for one in _signals(cell))]
    assert (status.code, status.signal) in died
