"""The stage of a play: one root and the actors that open the root."""

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
    """An actor's command raised an exception.

    Attributes:
        names: the names of the exception's class and of all base classes.
    """

    def __init__(self, names: list[str], text: str) -> None:
        super().__init__(f"{names[0]}: {text}")
        self.names = names


class ActorDied(Exception):
    """An actor ended unexpectedly."""


@attrs.frozen(kw_only=True)
class Setting:
    """What all plays share.

    Attributes:
        cradle: launches the actors.
        runtime: the runtime of the containers.
        namespaces: whether the containers have real namespaces.
        kernel_tells: whether the kernel reports an exit status also to a process that isn't the
            parent.
        place: the directory in which roots are made.
        bundle: the path of the containers' bundle.
        cgroup_parent: the parent of the containers' cgroups.
        actor: the class of the actors.
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
        """Return the command of a program: here a shell, whose stdin must be a PIPE."""
        end = ":" if program.kind == "stubborn" else f"exit {program.code}"
        stay = f"trap : INT USR2; trap 'exit {(program.code + 1) & 255}' USR1; trap '{end}' TERM"
        script = f"{stay}; while :; do read line; done"
        if program.kind == "exit":
            script = f"exit {program.code}"
        return ["/bin/sh", "-c", script]

    def is_ready(self, pid: int) -> bool:
        """Whether a process runs the program, has all traps (SIGTERM's comes last), and waits.

        A shell that gets a signal just before a read runs the trap only after the read.
        """
        return name_of(pid) == "sh" and catches_term(pid) and state_of(pid) == "S"

    @property
    def runtime_roots(self) -> Path:
        """The directory of the runtime's own roots."""
        return self.place


class Stage:
    """One root, and the actors on this root."""

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
        """Send an actor a command, and return the answer; raise Refused if the command raised."""
        self.tell(actor, *command)
        return self._answer(actor)

    def tell(self, actor: str, *command: Any) -> None:
        """Send an actor a command, without waiting for the answer."""
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
            raise ActorDied(f"{actor} ended unexpectedly; see stderr for its output") from error

    def close(self, actor: str) -> None:
        """Have an actor close the supervisor, and end."""
        left = self.ask(actor, "close")
        assert left == {}, f"descriptors that {actor} left open: {left}"
        self._forget(actor)

    def kill(self, actor: str) -> None:
        """SIGKILL an actor, unless the actor has ended already."""
        send(self.actors[actor][0], signal.SIGKILL)
        self._forget(actor)

    def _forget(self, actor: str) -> None:
        pid, ours = self.actors.pop(actor)
        until(lambda: state_of(pid) == "", f"{actor} is gone")
        ours.close()

    # ---- processes and leftovers --------------------------------------------------------

    def command(self, program: Program) -> list[str]:
        """Return the command of a program."""
        return self.setting.command(program)

    def find_pids(self, box: str, proc: Proc) -> None:
        """Look up the pids of a process and of the process's shim on the host."""
        directory = self.root / box / proc.id
        shim, pid = read_shim(str(directory / "shim")), read_pid(str(directory / "pid"))
        assert shim is not None and pid is not None
        proc.shim_pid, proc.pid = shim[0], pid
        if not self.setting.namespaces and not proc.seen:  # the process may not wait yet
            until(lambda: state_of(pid) != "R", f"{pid} waits to be started")

    def await_ready(self, proc: Proc) -> None:
        """Return when a process runs the program, with all handlers, or has ended."""
        until(lambda: state_of(proc.pid) in ("Z", "") or self.setting.is_ready(proc.pid), f"{proc}")

    def leftovers(self, alive: set[int], boxes: set[str]) -> Iterator[str]:
        """Return what exists and shouldn't, and which processes are missing."""
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
                if not name.startswith("."):  # newer versions of crun keep a directory there
                    yield f"the runtime's {name}"

    def finish(self) -> None:
        """Kill the actors that are left, and remove the roots, when the play is over."""
        for actor in tuple(self.actors):
            self.kill(actor)
        for path in (self.root, self.runtime_root):
            shutil.rmtree(path, ignore_errors=True)


def send(pid: int, number: int) -> None:
    """Signal a process by its pid on the host, if the process is still there."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def catches_term(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM; True if the process has gone."""
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
    """Return when ``condition`` holds; fail after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.001)
