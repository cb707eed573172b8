"""Run bundles with a real runtime, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs

from supervisor.bundle import Bundle, content_of
from supervisor.spec import for_runtime

SECONDS = 60
"""The longest time for any step; a slower step counts as stuck."""

APPLETS = """
    cat dd env false grep head hostname id kill ls mkdir mount nc ps pwd seq sh sleep stat tail
    tee test touch tr true ulimit umask wc
"""


def make_rootfs(directory: Path, busybox: str) -> None:
    """Make a root filesystem of a static busybox, with all directories that runtimes would add."""
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    (directory / "bin/busybox").write_bytes(Path(busybox).read_bytes())
    (directory / "bin/busybox").chmod(0o755)
    for applet in APPLETS.split():
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n")


def cgroup_mounts() -> list[str]:
    """Return where hierarchies of cgroups are mounted, of either version."""
    with open("/proc/self/mountinfo") as file:
        fields = [line.split() for line in file]
    return [line[4] for line in fields if line[line.index("-") + 1].startswith("cgroup")]


@attrs.define
class Runner:
    """Runs bundles with one runtime, each under a name and in a cgroup of its own.

    Attributes:
        runtime: the runtime's name or path.
        directory: the place for the runner's files.
        uid: the user of the runtime; None for the user who runs the tests.
        gid: with ``uid``.
        environment: the environment of the runtime.
    """

    runtime: str
    directory: Path
    uid: int | None = None
    gid: int | None = None
    parent: str = attrs.field(factory=lambda: f"trio-supervisor-tests-{uuid.uuid4().hex}")

    @property
    def rootless(self) -> bool:
        return os.geteuid() != 0 or self.uid is not None

    def command(self, *words: str) -> list[str]:
        return [self.runtime, "--root", str(self.directory / "state"), *words]

    def prepare(self, bundle: Bundle) -> tuple[str, list[str]]:
        """Write the config.json that is run; returns the container's name and the command."""
        name = f"c{uuid.uuid4().hex}"
        directory = self.directory / name
        directory.mkdir(mode=0o711)
        cgroup = None if self.rootless else f"/{self.parent}/{name}"
        spec = content_of(bundle).derive(cgroup=cgroup, directory=str(directory))
        content_of(bundle).build_rootfs(str(directory))
        spec = for_runtime(spec, self.runtime)
        (directory / "config.json").write_text(json.dumps(spec))
        self.give_away(directory)
        return name, self.command("run", "--bundle", str(directory), name)

    def give_away(self, directory: Path) -> None:
        """Give the files that the runtime reads and writes to the user who runs the runtime."""
        if self.uid is not None and self.gid is not None:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.directory)},
        )

    def run(self, bundle: Bundle) -> subprocess.CompletedProcess[str]:
        """Run a bundle until the bundle's program ends."""
        name, command = self.prepare(bundle)
        process = self.popen(command)
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            self.remove(name, process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def output(self, bundle: Bundle) -> str:
        """Run a bundle that must succeed, and return the output."""
        done = self.run(bundle)
        assert done.returncode == 0, done
        return done.stdout

    @contextlib.contextmanager
    def running(self, bundle: Bundle) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """Run a bundle, read the first line of output, and yield the container's name and the
        runtime."""
        name, command = self.prepare(bundle)
        process = self.popen(command)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield name, process
        finally:
            self.remove(name, process)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call the runtime for something other than running a bundle."""
        with self.popen(self.command(*words)) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def kill(self, name: str, signal: str) -> None:
        self.call("kill", name, signal)

    def remove(self, name: str, process: subprocess.Popen[str]) -> None:
        """End a container in any state."""
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                self.kill(name, "KILL")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=SECONDS)
                process.kill()
        process.communicate()
        self.call("delete", "--force", name)

    def remove_cgroups(self) -> None:
        """Remove what is left of our cgroups, in every hierarchy."""
        for mount in cgroup_mounts():
            top = os.path.join(mount, self.parent)
            for path, _, _ in os.walk(top, topdown=False):
                remove_cgroup(path)
            assert not os.path.exists(top), top


def remove_cgroup(path: str) -> None:
    """Remove a cgroup, which is busy until the kernel has done with the cgroup's last process."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that every user can pass through: only one user can pass pytest's own."""
    with tempfile.TemporaryDirectory(prefix="trio-supervisor-tests-", dir="/tmp") as name:
        os.chmod(name, 0o711)
        yield Path(name)
