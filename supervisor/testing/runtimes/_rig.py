"""The rig of `check_runtime`: calls a runtime as the library does, without a supervisor."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ...bundle import Bundle, content_of
from ...cgroups import Hierarchies
from ...children import PidFd
from ...runtime import Call, ContainerRuntime, Head, Runtime, pieces_of
from ...state import read_pid
from ...system import look_at
from .._processes import state_of
from .._subreaper import subreaper

_CLEANUP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.002


@attrs.frozen
class Called:
    """The result of a call.

    Attributes:
        words: the command line.
        returncode: the exit code.
        output: the file with the call's stdout; for create and exec also the program's.
        errors: the file with the call's stderr.
        log: the path of the runtime's log.
    """

    words: tuple[str, ...]
    returncode: int
    output: Path
    errors: Path
    log: Path

    def __str__(self) -> str:
        said = self.errors.read_text(encoding="utf-8", errors="replace").strip()
        return f"{' '.join(self.words)}: exit {self.returncode}{said and f', {said!r}'}"

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the log that are JSON objects."""
        found = []
        for piece in pieces_of(self.log.read_text(encoding="utf-8") if self.log.exists() else ""):
            with contextlib.suppress(ValueError):
                found.append(json.loads(piece))
        return [entry for entry in found if isinstance(entry, dict)]


@attrs.frozen
class Made:
    """A process that a runtime has made.

    Attributes:
        id: the container's id.
        process: the process's pidfd.
        call: the call that made the process.
    """

    id: str
    process: PidFd
    call: Called

    async def ended(self) -> int | None:
        """Wait for the end of the process; return the exit code, or -N for signal N."""
        await self.process.wait_ended()
        return self.process.reap()


@attrs.define
class Rig:
    """The calls of a check, with their containers and files and the runtime's root.

    Attributes:
        silence: the default stdin of the calls: a pipe that stays open and gets no data.
    """

    runtime: Runtime
    path: Path
    bundle: Bundle
    hierarchies: Hierarchies
    cgroup_parent: str
    ids: Iterator[str]
    silence: int
    processes: list[PidFd] = attrs.field(factory=list)
    boxes: list[str] = attrs.field(factory=list)

    def of(self, id: str) -> ContainerRuntime:
        """Return the `ContainerRuntime` of a container, which composes the library's calls."""
        return ContainerRuntime(head=self._head(id), no_pivot=self.runtime.no_pivot)

    def words(self, verb: str, id: str, *options: str) -> list[str]:
        """Return a command line, with options before the container's id."""
        return Call(head=self._head(id), verb=verb, options=options).words

    def kill(self, id: str, number: int) -> list[str]:
        """Return the command line that sends a signal to the container's first process."""
        return [*self.words("kill", id), str(number)]

    def list_all(self) -> list[str]:
        """Return the command line that prints all containers as a JSON array."""
        return [*self.bare(), "list", "--format", "json"]

    def bare(self) -> list[str]:
        """Return the beginning of each command line: everything before the verb."""
        head = self._head("")
        return [head.path, *head.args, "--root", head.root]

    def _head(self, id: str) -> Head:
        runtime = self.runtime
        root = str(self.path / "root")
        return Head(path=runtime.path, args=runtime.args, root=root, container=id)

    def cgroup(self, id: str) -> str | None:
        """Return the cgroup of a container; None if we may make no cgroups."""
        return f"{self.cgroup_parent}/{id}" if self.hierarchies.usable else None

    def config(self, id: str, args: Sequence[str], **process: Any) -> str:
        """Write a bundle directory; return the path."""
        spec = content_of(self.bundle).derive(cgroup=self.cgroup(id))
        spec["process"] |= {"args": list(args), **process}
        directory = self.path / "bundles" / id
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(spec), encoding="utf-8")
        return str(directory)

    async def call(
        self, words: Sequence[str], *, stdin: bytes | None = None, id: str = "call"
    ) -> Called:
        """Run a command line to the end; the output goes to files."""
        name = f"{id}-{next(self.ids)}"
        paths = [self.path / f"{name}.{kind}" for kind in ("in", "out", "err", "log")]
        if stdin is not None:
            paths[0].write_bytes(stdin)
        logged = [words[0], *self.runtime.args, "--log", str(paths[3]), "--log-format", "json"]
        command = [*logged, *words[1 + len(self.runtime.args) :]]
        with _opened(None if stdin is None else paths[0], paths[1], paths[2]) as (given, out, err):
            done = await trio.run_process(
                command,
                stdin=self.silence if given is None else given,
                stdout=out,
                stderr=err,
                check=False,
                env=_environment(),
            )
        return Called(tuple(command), done.returncode, *paths[1:])

    async def create(self, *args: str, stdin: bytes | None = None, **process: Any) -> Made:
        """Make a container; the process waits for the start."""
        id = f"box-{next(self.ids)}"
        self.boxes.append(id)
        pid_file = self.path / f"{id}.pid"
        console = process.pop("console_socket", None)
        call = self.of(id).create(
            bundle=self.config(id, args, **process),
            pid_file=str(pid_file),
            console_socket=console,
        )
        return self._made(id, await self.call(call.words, stdin=stdin, id=id), pid_file)

    async def exec(self, box: Made, *args: str) -> Made:
        """Run a further process in a container."""
        name = f"exec-{next(self.ids)}"
        file, pid_file = self.path / f"{name}.json", self.path / f"{name}.pid"
        process = {**self.bundle.spec["process"], "args": list(args), "terminal": False}
        file.write_text(json.dumps(process), encoding="utf-8")
        call = self.of(box.id).exec(process=str(file), pid_file=str(pid_file))
        return self._made(box.id, await self.call(call.words, id=name), pid_file)

    def _made(self, id: str, call: Called, pid_file: Path) -> Made:
        assert call.returncode == 0, str(call)
        pid = read_pid(str(pid_file))
        assert pid is not None, f"{call} wrote no pid to {pid_file}"
        assert self._keep(pid), (
            f"{call} wrote the pid {pid}, which isn't an orphan that became our child"
        )
        return Made(id, self.processes[-1], call)

    def _keep(self, pid: int) -> bool:
        """Keep a process, to kill it in the end; return whether the process is our child.

        Only a child of ours is kept: another process would be a stranger's.
        """
        now = look_at(pid)
        ours = now is not None and now.parent_pid == os.getpid()
        process = PidFd.open(pid) if ours else None
        if process is not None:
            self.processes.append(process)
        return process is not None

    async def run(self, *args: str, **process: Any) -> tuple[Made, int | None]:
        """Run a program in a new container to the program's end."""
        box = await self.create(*args, **process)
        await self.start(box)
        return box, await box.ended()

    async def start(self, box: Made) -> None:
        """Start a container."""
        done = await self.call(self.words("start", box.id))
        assert done.returncode == 0, str(done)

    async def state(self, id: str) -> dict[str, Any] | None:
        """Return a container's state; None if the runtime doesn't know the container."""
        done = await self.call(self.words("state", id))
        if done.returncode != 0:
            return None
        told: dict[str, Any] = json.loads(done.output.read_bytes())
        return told

    async def until(self, made: Made, text: str) -> None:
        """Return when a process has written ``text`` to stdout."""
        while text not in made.call.output.read_text(encoding="utf-8", errors="replace"):
            assert not made.process.ended(), f"{made.id} ended and didn't write {text!r}"
            await trio.sleep(_POLL_SECONDS)

    async def ready(self, made: Made) -> None:
        """Return when a shell has written "ready" and reads: only then do traps run at once."""
        await self.until(made, "ready")
        while state_of(made.process.pid) != "S":
            assert not made.process.ended(), f"{made.id} ended and didn't read"
            await trio.sleep(_POLL_SECONDS)

    async def clean_up(self) -> None:
        """Remove every container, and the processes and cgroups that are left."""
        known = {process.pid for process in self.processes}
        for id in self.boxes:
            told = await self.state(id)
            if told is not None and told["pid"] not in known:
                self._keep(told["pid"])  # the process of a create that failed half-way
            await self.call(self.of(id).deletion().words)
        for process in self.processes:
            process.kill()
            await process.wait_reaped()
            process.close()
        if self.hierarchies.usable:
            await self.hierarchies.remove(self.cgroup_parent)


@contextlib.asynccontextmanager
async def open_rig(runtime: Runtime, bundle: Bundle | None = None) -> AsyncIterator[Rig]:
    """Make a rig, and clean up at the end of the block.

    Cancellation: the clean-up is shielded, with a deadline of its own.
    """
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="trio-supervisor-")))
    path.chmod(0o711)  # a user namespace's root passes through
    silence, writer = os.pipe()
    rig = Rig(
        runtime=runtime,
        path=path,
        bundle=bundle or Bundle.from_host(["/bin/sh"], path=path / "bundle"),
        hierarchies=Hierarchies.discover(),
        cgroup_parent=f"/trio-supervisor-check-{os.getpid()}-{secrets.token_hex(4)}",
        ids=map(str, itertools.count()),
        silence=silence,
    )
    with subreaper():
        try:
            yield rig
        finally:
            with trio.CancelScope(deadline=trio.current_time() + _CLEANUP_SECONDS, shield=True):
                await rig.clean_up()
            os.close(silence)
            os.close(writer)
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(given: Path | None, *written: Path) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as files:
        yield [
            None if given is None else files.enter_context(open(given, "rb")),
            *(files.enter_context(open(path, "wb")) for path in written),
        ]


def _environment() -> dict[str, str]:
    """Return our environment, with a variable that no container may get."""
    return {**os.environ, "RUNTIME_CALLER": "1"}


KILLED: Final = -signal.SIGKILL
