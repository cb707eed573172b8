"""Where the state machine plays: a root of its own, and actors that obey."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from ...cgroups import Hierarchies
from ...runtime import Runtime
from ...state import read_pid, read_shim
from .._processes import name_of, state_of
from ._actor import Actor
from ._cradle import Cradle
from ._model import Proc, Program

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0
PATIENCE_SECONDS = 8.0
DEADLINES = {"create": 30, "start": 30, "call": 30, "cleanup": 30, "kill": 2, "shim": 1}


class Refused(Exception):
    """An actor's supervisor raised something.

    Attributes:
        names: the names of its class and of all that this is one of.
    """

    def __init__(self, names: list[str], text: str) -> None:
        super().__init__(f"{names[0]}: {text}")
        self.names = names


class ActorDied(Exception):
    """An actor ended that wasn't told to."""


@attrs.frozen(kw_only=True)
class Setting:
    """What all plays share.

    Attributes:
        cradle: launches the actors.
        runtime: what makes their containers.
        namespaces: whether it makes real ones.
        kernel_tells: whether the kernel tells how processes ended that aren't one's children.
        place: the directory in which roots are made.
        bundle: the path of the bundle that containers are made of.
        cgroup_parent: for their cgroups.
        actor: what the supervising programs are.
    """

    cradle: Cradle
    runtime: Runtime
    namespaces: bool
    kernel_tells: bool
    place: Path
    bundle: str
    cgroup_parent: str
    actor: type[Actor] = Actor

    def command(self, program: Program) -> list[str]:
        """Return the command of a program: here a shell's, which needs a PIPE for its input."""
        end = ":" if program.kind == "stubborn" else f"exit {program.code}"
        stay = f"trap : INT USR2; trap 'exit {(program.code + 1) & 255}' USR1; trap '{end}' TERM"
        script = f"{stay}; while :; do read line; done"
        if program.kind == "exit":
            script = f"exit {program.code}"
        return ["/bin/sh", "-c", script]

    def is_ready(self, pid: int) -> bool:
        """Whether a process has become its program, hears its signals, SIGTERM's last, and waits.

        A shell that gets one just before it reads hears it after the read.
        """
        return name_of(pid) == "sh" and catches_term(pid) and state_of(pid) == "S"

    @property
    def runtime_roots(self) -> Path:
        """The directory of the runtime's own roots."""
        return self.place


class Stage:
    """One root and its actors."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting = setting
        self.root: Path = setting.place / name
        self.runtime_root: Path = setting.runtime_roots / f"{name}-runtime"
        self.actors: dict[str, tuple[int, socket.socket]] = {}
        self.torn = False

    # ---- actors -------------------------------------------------------------------------

    def open(self, actor: str) -> None:
        """Launch an actor, which opens the root."""
        runtime = self.setting.runtime
        pid, ours = self.setting.cradle.launch(
            root=str(self.root),
            runtime=[runtime.path, *runtime.args],
            runtime_root=str(self.runtime_root),
            cgroup_parent=self.setting.cgroup_parent,
            deadlines=DEADLINES,
            bundle=self.setting.bundle,
            actor=f"{self.setting.actor.__module__}:{self.setting.actor.__qualname__}",
        )
        ours.settimeout(ANSWER_SECONDS)
        self.actors[actor] = pid, ours
        assert self._answer(actor) == "open"

    def ask(self, actor: str, *command: Any) -> Any:
        """Have an actor do something; raise Refused if its supervisor does."""
        self.tell(actor, *command)
        return self._answer(actor)

    def tell(self, actor: str, *command: Any) -> None:
        """Have an actor begin something."""
        line = json.dumps(command).encode() + b"\n"
        with self._alive(actor):
            self.actors[actor][1].sendall(line)

    def _answer(self, actor: str) -> Any:
        _, ours = self.actors[actor]
        said = b""
        while not said.endswith(b"\n"):
            with self._alive(actor):
                chunk = ours.recv(1 << 20)
                if not chunk:
                    raise ConnectionResetError
            said += chunk
        answer = json.loads(said)
        if "error" in answer:
            logger.info("%s: %s", actor, answer["text"])
            raise Refused(answer["error"], answer["text"])
        return answer["ok"]

    @contextlib.contextmanager
    def _alive(self, actor: str) -> Iterator[None]:
        try:
            yield
        except (BrokenPipeError, ConnectionResetError) as error:
            logger.error("%s died", actor)
            raise ActorDied(f"{actor} ended (what it said is on stderr)") from error

    def close(self, actor: str) -> None:
        """Have an actor close its supervisor, and end."""
        left = self.ask(actor, "close")
        assert left == {}, f"descriptors that {actor} has left: {left}"
        self._forget(actor)

    def kill(self, actor: str) -> None:
        """SIGKILL an actor, if it hasn't ended by itself."""
        send(self.actors[actor][0], signal.SIGKILL)
        self._forget(actor)

    def _forget(self, actor: str) -> None:
        pid, ours = self.actors.pop(actor)
        until(lambda: state_of(pid) == "", f"{actor} is gone")
        ours.close()

    # ---- what is there ------------------------------------------------------------------

    def command(self, program: Program) -> list[str]:
        """Return the command of a program."""
        return self.setting.command(program)

    def find_pids(self, box: str, proc: Proc) -> None:
        """Look up what a process and its shim are on the host."""
        directory = self.root / box / proc.id
        shim, pid = read_shim(str(directory / "shim")), read_pid(str(directory / "pid"))
        assert shim is not None and pid is not None
        proc.shim_pid, proc.pid = shim[0], pid
        if not self.setting.namespaces and not proc.seen:  # it isn't at the fake's gate at once
            until(lambda: state_of(pid) != "R", f"{pid} waits to be started")

    def await_ready(self, proc: Proc) -> None:
        """Return when a process is its program, which has its handlers, or has ended."""
        until(lambda: state_of(proc.pid) in ("Z", "") or self.setting.is_ready(proc.pid), f"{proc}")

    def leftovers(self, alive: set[int], boxes: set[str]) -> Iterator[str]:
        """Say what is there and has no right to be."""
        actors = {pid for pid, _ in self.actors.values()}
        for pid, command in self.setting.cradle.descendants().items():
            if pid not in alive | actors:
                yield f"process {pid} ({command}, {state_of(pid)})"
        for pid in alive:
            if state_of(pid) == "":
                yield f"no process {pid}"
        for name in set(os.listdir(self.root) if self.root.exists() else ()) - boxes:
            if not (self.torn and name.startswith((".new-", ".deleted-"))):
                yield f"directory {name}"
        for path in _cgroups(self.setting.cgroup_parent):
            if not any(path.endswith(f"-{box}") for box in boxes):
                yield f"cgroup {path}"
        if self.runtime_root.exists():
            for name in set(os.listdir(self.runtime_root)) - boxes:
                if not name.startswith("."):  # newer crun has a directory of its own there
                    yield f"the runtime's {name}"

    def finish(self) -> None:
        """Remove what is ours when the play is over."""
        for actor in tuple(self.actors):
            self.kill(actor)
        for path in (self.root, self.runtime_root):
            shutil.rmtree(path, ignore_errors=True)


def send(pid: int, number: int) -> None:
    """Signal a process, wherever it is."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def catches_term(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM; one that has gone needs none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def _cgroups(parent: str) -> list[str]:
    places = Hierarchies.discover().remains(parent)
    return [entry.path for place in places for entry in os.scandir(place) if entry.is_dir()]


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when ``condition`` holds; fail if it doesn't in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.001)
