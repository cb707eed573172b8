"""Streams of those who aren't root, and of programs that are another user inside."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import (
    PIPE,
    Bundle,
    ContainerPool,
    InvalidValue,
    Supervisor,
    open_supervisor,
    run_container,
)
from supervisor.bundle import gate_path
from supervisor.native import find_binary
from supervisor.pool import _pool
from tests.stdio.test_pipes import everything
from tests.support.containers import left
from tests.support.runtimes import Choice, needs_root
from tests.support.users import as_user

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

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
        """Return a bundle whose program is somebody else inside."""
        path = self.path / "bundle"
        shutil.rmtree(path, ignore_errors=True)
        return Bundle.from_rootfs(self.rootfs, list(args), user=USER, path=path)

    def run(self, *programs: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Run each as the user, with a supervisor of its own on the same root."""

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
    """A home, and programs of ours that anybody may run, wherever ours are."""
    path, programs = workdir / "home", workdir / "programs"
    path.mkdir()
    path.chmod(0o711)
    os.chown(path, somebody.pw_uid, somebody.pw_gid)
    programs.mkdir(mode=0o755)
    shim = shutil.copy(find_binary("supervisor-shim"), programs)
    gate = shutil.copy(gate_path(), programs)
    monkeypatch.setattr(_pool, "gate_path", lambda: str(gate))
    return Home(path, rootfs, choice.name, str(shim), somebody)


def test_another_user_inside(home: Home) -> None:
    """The runtime gives the fifos to the program's user; they can be opened all the same."""

    async def program(sup: Supervisor) -> None:
        script = "cat; id -u >&2; echo again > /dev/stdout"
        bundle = home.bundle("busybox", "sh", "-c", script.replace("id", "busybox id"))
        done = await run_container(
            bundle, supervisor=sup, stdin=b"fed\n", capture_stdout=True, capture_stderr=True
        )
        assert (done.stdout, done.stderr) == (b"fed\nagain\n", b"%d\n" % USER), done

    home.run(program)


@pytest.mark.parametrize("user", [0, USER])
def test_stdin_that_is_opened_after_its_end(home: Home, user: int) -> None:
    """As by root: once it was waited for without an end."""

    async def program(sup: Supervisor) -> None:
        (home.path / "in").write_bytes(b"fed\n")
        script = ["busybox", "sh", "-c", "busybox sleep 0.3; busybox cat /dev/stdin"]
        async with await sup.create("a", home.bundle("sleep", "60")) as box:
            await box.start()
            for given in (b"fed\n", home.path / "in"):
                done = await box.run(script, user=user, stdin=given, capture_stdout=True)
                assert done.stdout == b"fed\n"

    home.run(program)


def test_an_exec_as_another_user(home: Home) -> None:
    """So can those of an exec, whoever its init is."""

    async def program(sup: Supervisor) -> None:
        async with await sup.create("a", home.bundle("sleep", "60")) as box:
            await box.start()
            for user in (0, USER, 7):
                done = await box.run(
                    ["busybox", "sh", "-c", "cat; busybox id -u"],
                    user=user,
                    stdin=b"fed\n",
                    capture_stdout=True,
                )
                assert done.stdout == b"fed\n%d\n" % user

    home.run(program)


def test_adopted(home: Home) -> None:
    """They can be opened again by the next supervisor."""

    async def make(sup: Supervisor) -> None:
        box = await sup.create("a", home.bundle("cat"), stdin=PIPE, stdout=PIPE)
        await box.start()
        assert box.stdin is not None
        await box.stdin.send_all(b"one ")

    async def adopt(sup: Supervisor) -> None:
        async with sup["a"] as box:
            assert box.stdin is not None
            await box.stdin.send_all(b"two")
            await box.stdin.aclose()
            assert await everything(box.stdout) == b"one two"

    home.run(make, adopt)


def test_pool(home: Home) -> None:
    """A pool's containers are fed and heard too."""

    async def program(sup: Supervisor) -> None:
        async with ContainerPool(home.bundle("true"), size=1, supervisor=sup) as pool:
            done = await pool.run(["/bin/busybox", "sh", "-c", "cat; busybox id -u"], stdin=b"x\n")
            assert done.stdout == b"x\n%d\n" % USER

    home.run(program)


def test_without_acls(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no ACLs, it is said what can be done, and nothing is left."""

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "no ACLs here")

    async def program(sup: Supervisor) -> None:
        for stream in ("stdin", "stdout", "stderr"):
            with pytest.raises(InvalidValue, match=f"its {stream} can't be a PIPE") as caught:
                await sup.create("a", home.bundle("cat"), **{stream: PIPE})
            assert caught.value.container == "a"
        async with await sup.create("a", home.bundle("cat"), terminal=True) as box:
            await box.start()
            done = await box.run(["echo", "hi"], user=0, capture_stdout=True)
            assert done.stdout == b"hi\n"

    monkeypatch.setattr(os, "setxattr", refuse)
    home.run(program)
