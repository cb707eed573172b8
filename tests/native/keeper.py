"""A keeper under test, and a root with container directories."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.native.leash import Leash
from tests.native.programs import Programs
from tests.support.leaks import PATIENCE_SECONDS, wait_for

patient = pytest.mark.parametrize("programs", ["release"], indirect=True)
"""For tests in which the keeper has to wait."""
impatient = pytest.mark.parametrize("programs", ["sanitized"], indirect=True)
"""For tests in which the keeper has to give up: only the release build waits 10 seconds for
that."""


class KeeperRig:
    """One keeper that watches one root.

    Attributes:
        root: the supervisor's root.
        keeper: the keeper's process, once launched.
    """

    def __init__(self, programs: Programs, root: Path, leash: Leash) -> None:
        self.programs = programs
        self.root = root
        self.leash = leash
        self.keeper: subprocess.Popen[bytes] | None = None
        root.mkdir(mode=0o711)
        self.directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def container(self, name: str, *records: Sequence[str | bytes]) -> Path:
        """Make a container directory with a lock, an init, and a cleanup file of these records."""
        path = self.root / name
        (path / "init").mkdir(parents=True)
        (path / "lock").touch()
        (path / "init/shim").touch()
        text = b"".join(
            b"".join(os.fsencode(word) + b"\0" for word in record) + b"\0" for record in records
        )
        (path / "cleanup").write_bytes(text)
        return path

    def launch(self, *words: str, **popen: Any) -> int:
        """Launch the keeper; return the keeper's pid."""
        fds = f"{self.leash}:{self.directory}"
        command = [self.programs.keeper, fds, str(self.root), *words]
        self.keeper = subprocess.Popen(
            command,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                "stderr": subprocess.DEVNULL,
                "start_new_session": True,
                "env": self.programs.environment,
                "pass_fds": (*self.leash.fds, self.directory),
                **popen,
            },
        )
        return self.keeper.pid

    @property
    def pid(self) -> int:
        """The keeper's pid."""
        assert self.keeper is not None
        return self.keeper.pid

    def wait_gone(self) -> int:
        """Wait until the keeper has ended; return the exit code."""
        assert self.keeper is not None
        return self.keeper.wait(2 * PATIENCE_SECONDS)

    def clean(self, *words: str) -> None:
        """Launch the keeper on a leash, break the leash, and wait until the keeper has ended."""
        self.launch(*words)
        self.leash.let_go()
        assert self.wait_gone() == 0

    def has_open(self, path: Path) -> bool:
        """Whether the keeper has a file open."""
        fds = f"/proc/{self.pid}/fd"
        for fd in os.listdir(fds):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"{fds}/{fd}") == str(path):
                    return True
        return False

    def wait_ready(self) -> None:
        """Return when the keeper has started and waits for the leash."""
        wait_for(lambda: Path(f"/proc/{self.pid}/cwd").readlink() == Path("/"), "a waiting keeper")

    def wait_waiting(self, path: Path) -> None:
        """Return when the keeper waits for the lock on a file."""
        wait_for(lambda: self.has_open(path), f"a keeper that waits for {path}")

    def close(self) -> None:
        """End the keeper."""
        os.close(self.directory)
        if self.keeper is not None and self.keeper.poll() is None:
            self.keeper.kill()
            self.keeper.wait()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
