"""Rivals: podman, conmon and containerd, where they are installed.

A benchmark installs no rival. A missing rival is listed as absent, with the command that installs
the package.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import attrs
from _stage import Stage
from _turns import Way, timed_sync
from _ways import Bare, bare_way

from supervisor import Runtime

_SECONDS = 60
_CONMON_SECONDS = 5
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@attrs.frozen
class Rival:
    """One rival.

    Attributes:
        name: the rival's name.
        way: the rival's way.
        seldom: the rival has one turn in this many rounds.
    """

    name: str
    way: Way
    seldom: int = 10


@contextlib.asynccontextmanager
async def rivals(
    stage: Stage, runtime: Runtime, *, exec: bool = False
) -> AsyncIterator[list[Rival]]:
    """Yield the rivals that can run here with a runtime; list the others as absent.

    Args:
        exec: whether the rivals run `true` in a running container, or make a container for `true`.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for name, (program, open_rival) in _KINDS.items():
            if shutil.which(program) is None:
                stage.absent[name] = f"not installed: apt-get install {name}"
                continue
            try:
                rival = stack.enter_context(open_rival(stage, runtime, exec))
                if rival is not None:
                    await rival.way()  # a rival must succeed once
                    found.append(rival)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                stage.absent[name] = f"fails here with {runtime.name}: {_reason(error)}"
        yield found


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    lines = str(said).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__


def _call(*command: str, **options: object) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS, **options)


@contextlib.contextmanager
def podman(stage: Stage, runtime: Runtime, exec: bool) -> Iterator[Rival]:
    """Yield podman, with a storage of its own."""
    place = stage.directory / f"podman-{runtime.name}"
    head = (
        *("podman", "--root", f"{place}/root", "--runroot", f"{place}/run"),
        *("--tmpdir", f"{place}/tmp", "--runtime", runtime.path, "--cgroup-manager", "cgroupfs"),
    )
    run = ("--network", "none", *_LIMITS, "--log-driver", "none", "--rootfs", str(stage.rootfs))
    if not exec:
        yield Rival("podman", timed_sync(lambda: _call(*head, "run", "--rm", *run, "/true")))
        return
    _call(*head, "run", "--detach", "--name", "idle", *run, "/idle")
    try:
        yield Rival("podman", timed_sync(lambda: _call(*head, "exec", "idle", "/true")))
    finally:
        _call(*head, "rm", "--force", "--time", "0", "idle")


@contextlib.contextmanager
def conmon(stage: Stage, runtime: Runtime, exec: bool) -> Iterator[Rival | None]:
    """Yield conmon, driven as podman drives conmon, with the least code."""
    if exec:
        yield None  # an exec would be the runtime's exec below a second conmon
        return
    loop = Conmon(stage, runtime)
    yield Rival("conmon", bare_way(loop, loop.lifecycle), seldom=3)


class Conmon(Bare):
    """conmon as the container's parent, as our shim is: create, start, wait, delete."""

    kind = "conmon"

    def __init__(self, stage: Stage, runtime: Runtime) -> None:
        super().__init__(stage, runtime)
        self._runtime = runtime
        self._exits, self._sockets = self._place / "exits", self._place / "sockets"
        self._exits.mkdir()
        self._sockets.mkdir()

    def lifecycle(self, prepared: tuple[str, Path]) -> None:
        """Create, start, wait, delete."""
        id, bundle = prepared
        monitor = self._create(id, bundle)
        try:
            _call(*self.call("start", id))
            # conmon ends after writing the file with the exit code.
            if not select.select([monitor], [], [], _SECONDS)[0]:
                raise RuntimeError("conmon doesn't end")
        finally:
            os.close(monitor)
        if (self._exits / id).read_text().strip() != "0":
            raise RuntimeError("conmon: the program failed")
        _call(*self.call("delete", id))

    def _create(self, id: str, bundle: Path) -> int:
        """Return a pidfd of the monitor, once the container is created."""
        heard, told = os.pipe2(0)
        os.set_inheritable(told, True)
        pid_file = bundle / "conmon-pid"
        command = [
            *("conmon", "--api-version", "1", "--cid", id, "--cuuid", id, "--name", id),
            *("--runtime", self._runtime.path, "--bundle", str(bundle)),
            *("--exit-dir", str(self._exits), "--conmon-pidfile", str(pid_file)),
            *("--socket-dir-path", str(self._sockets)),
            *("--container-pidfile", str(bundle / "pid"), "--log-path", f"k8s-file:{bundle}/log"),
            *("--runtime-arg", "--root", "--runtime-arg", str(self._place / "state")),
        ]
        try:
            environment = {**os.environ, "_OCI_SYNCPIPE": str(told)}
            subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[told],
                timeout=_CONMON_SECONDS,
            )
            os.close(told)
            told = -1
            if not select.select([heard], [], [], _CONMON_SECONDS)[0]:
                raise RuntimeError("conmon didn't report the container")
            answer = os.read(heard, 4096)  # {"data": PID}, or -1 and the reason
        finally:
            for fd in (heard, told):
                if fd >= 0:
                    os.close(fd)
        if b"-1" in answer or not answer:
            raise RuntimeError(f"conmon reported {answer.decode(errors='replace').strip()}")
        return os.pidfd_open(int(pid_file.read_text()))


@contextlib.contextmanager
def containerd(stage: Stage, runtime: Runtime, exec: bool) -> Iterator[Rival]:
    """Yield `ctr`, with a containerd of our own."""
    place = stage.directory / f"containerd-{runtime.name}"
    place.mkdir()
    socket = place / "socket"
    config = place / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n'
    )
    with open(place / "log", "wb") as log:
        daemon = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    try:
        _await_socket(daemon, socket)
        head = ("ctr", "--address", str(socket))
        run = ("--runc-binary", runtime.path, "--rootfs", str(stage.rootfs))
        with (_ctr_exec if exec else _ctr_run)(head, run) as way:
            yield Rival("containerd", way)
    finally:
        daemon.terminate()
        daemon.wait()


@contextlib.contextmanager
def _ctr_run(head: Sequence[str], run: Sequence[str]) -> Iterator[Way]:
    numbers = itertools.count()
    yield timed_sync(
        lambda: _call(*head, "run", "--rm", *run, f"ctr-{os.getpid()}-{next(numbers)}", "/true")
    )


@contextlib.contextmanager
def _ctr_exec(head: Sequence[str], run: Sequence[str]) -> Iterator[Way]:
    """Yield the way of an exec, in a container whose id no other containerd has on this machine."""
    id, numbers = f"idle-{os.getpid()}", itertools.count()
    _call(*head, "run", "--detach", *run, id, "/idle")
    try:
        yield timed_sync(
            lambda: _call(*head, "task", "exec", "--exec-id", f"x{next(numbers)}", id, "/true")
        )
    finally:
        _call(*head, "task", "delete", "--force", id)
        _call(*head, "container", "delete", id)


def _await_socket(daemon: subprocess.Popen[bytes], socket: Path) -> None:
    late = time.monotonic() + _SECONDS
    while not socket.exists():
        if daemon.poll() is not None or time.monotonic() > late:
            raise RuntimeError("containerd didn't start")
        time.sleep(0.01)


_KINDS = {
    "podman": ("podman", podman),
    "conmon": ("conmon", conmon),
    "containerd": ("ctr", containerd),
}
"""By name: the program that must be installed, and the function that opens the rival."""
