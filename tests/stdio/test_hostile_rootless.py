"""What a hostile container of an ordinary user does to its streams: root inside is that user."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import PIPE, Bundle, Supervisor, run_container
from tests.stdio.doors import HOSTILE, KINDS, PYTHON, STREAMS, Door
from tests.support.homes import USER, Home
from tests.support.runtimes import needs_root
from tests.support.streams import everything

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

SHUT = "import os; [os.fchmod(fd, 0) for fd in {}]; os.write(2, b'shut'); os.read(0, 1)"


@pytest.fixture
def umask() -> Iterator[None]:
    """The most generous one."""
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "device"])
@pytest.mark.parametrize("user", [0, USER])
@pytest.mark.usefixtures("umask")
def test_a_hostile_program(home: Home, kind: str, user: int) -> None:
    """Root inside owns the caller's files, and reaches none of them, in init and in an exec."""
    null = os.stat("/dev/null")

    async def program(sup: Supervisor) -> None:
        doors = [Door(kind, stream, home.path) for stream in STREAMS]
        streams = dict(zip(STREAMS, (door.given for door in doors), strict=True))
        hostile = [PYTHON, "-ISc", HOSTILE]
        with (
            Bundle.from_host(hostile, user=user) as init,
            Bundle.from_host(["sleep", "60"]) as idle,
        ):
            done = await run_container(init, supervisor=sup, check=False, **streams)
            assert done.returncode == 7
            async with await sup.create("a", idle) as box:
                await box.start()
                ran = await box.run(hostile, user=user, check=False, **streams)
                assert ran.returncode == 7
        assert [door.look() for door in doors] == [door.before for door in doors]
        for door in doors:
            door.close()
        assert find_open_to_others(home.path / "root") == []

    home.run(program)
    after = os.stat("/dev/null")
    assert (after.st_mode, after.st_uid, after.st_gid) == (null.st_mode, null.st_uid, null.st_gid)


def find_open_to_others(root: Path) -> list[Path]:
    """Return the files below a root that others may read or write."""
    found = [path for path in root.rglob("*") if not path.is_symlink()]
    return [path for path in found if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.parametrize("hold", [False, True])
def test_a_container_that_shuts_us_out(home: Home, hold: bool) -> None:
    """A container whose root took the modes of the fifos away isn't broken for the next
    supervisor."""

    async def make(sup: Supervisor) -> None:
        bundle = Bundle.from_host([PYTHON, "-ISc", SHUT.format("(0, 1, 2)")], path=home.path / "b")
        box = await sup.create(
            "a",
            bundle,
            **dict.fromkeys(STREAMS, PIPE),
            on_shim_lost="keep" if hold else "kill",
        )
        await box.start()
        assert box.stderr is not None
        assert await box.stderr.receive_some(4) == b"shut"

    async def adopt(sup: Supervisor) -> None:
        assert dict(sup.broken) == {}
        async with sup["a"] as box:
            assert box.stdin is not None
            await box.stdin.send_all(b"x")
            assert (await box.wait()).code == 0
            assert await everything(box.stdout) == b""

    home.run(make, adopt)


def test_another_user_that_shuts_us_out(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """A fifo that is another user's can't be had back; the rest is supervised all the same."""

    async def make(sup: Supervisor) -> None:
        args = [PYTHON, "-ISc", SHUT.format("(1,)")]
        bundle = Bundle.from_host(args, user=USER, path=home.path / "b")
        box = await sup.create("a", bundle, **dict.fromkeys(STREAMS, PIPE))
        await box.start()
        assert box.stderr is not None
        assert await box.stderr.receive_some(4) == b"shut"

    async def adopt(sup: Supervisor) -> None:
        async with sup["a"] as box:
            assert box.stdout is None
            assert any("stdout can't be a PIPE" in line for line in caplog.messages)
            assert box.stdin is not None
            await box.stdin.send_all(b"x")
            assert (await box.wait()).code == 0

    with caplog.at_level(logging.WARNING):
        home.run(make, adopt)
