"""A directory in which an ordinary user has a root."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import Bundle, Supervisor, open_supervisor
from supervisor.bundle import gate_path
from supervisor.native import find_binary
from supervisor.pool import _pool
from tests.support.containers import left
from tests.support.runtimes import Choice
from tests.support.users import as_user

USER = 1000


@attrs.frozen
class Home:
    """Where an ordinary user with subordinate ids has a root and may run our programs."""

    path: Path
    rootfs: Path
    runtime: str
    shim: str
    user: pwd.struct_passwd

    def bundle(self, *args: str) -> Bundle:
        """Return a bundle whose program runs as another user inside."""
        path = self.path / "bundle"
        shutil.rmtree(path, ignore_errors=True)
        return Bundle.from_rootfs(self.rootfs, list(args), user=USER, path=path)

    def run(self, *programs: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Run each program as the user, with a new supervisor on the same root."""

        async def all_of_them() -> None:
            root = self.path / "root"
            for program in programs:
                with trio.fail_after(30):
                    async with open_supervisor(root, runtime=self.runtime, shim=self.shim) as sup:
                        await program(sup)
            assert left(root) == []

        as_user(self.user.pw_uid, self.user.pw_gid, all_of_them)


@pytest.fixture
def home(
    choice: Choice,
    rootfs: Path,
    workdir: Path,
    somebody: pwd.struct_passwd,
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    """A home, and copies of our programs that any user may run."""
    path, programs = workdir / "home", workdir / "programs"
    path.mkdir()
    path.chmod(0o711)
    os.chown(path, somebody.pw_uid, somebody.pw_gid)
    programs.mkdir(mode=0o755)
    shim = shutil.copy(find_binary("supervisor-shim"), programs)
    gate = shutil.copy(gate_path(), programs)
    monkeypatch.setattr(_pool, "gate_path", lambda: str(gate))
    return Home(path, rootfs, choice.name, str(shim), somebody)
