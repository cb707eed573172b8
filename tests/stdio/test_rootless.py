"""Streams of ordinary users, and of programs that are another user inside."""

from __future__ import annotations

import errno
import os

import pytest

from supervisor import (
    PIPE,
    ContainerPool,
    InvalidValue,
    Supervisor,
    run_container,
)
from tests.support.homes import USER, Home
from tests.support.runtimes import needs_root
from tests.support.streams import everything

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]


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
    """An exec can open stdin after the end of the input, as by root; the open once waited for
    ever."""

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
    """An exec can reopen its streams, whatever user init is."""

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
    """The next supervisor can open the streams again."""

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
    """Where the file system has no ACLs, the error tells what to do, and nothing is left."""

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
