"""The handle of a deleted container never acts on a later container of the same id."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from supervisor import LOG, PIPE, Container, ContainerNotFound, ProcessEnded
from tests.conftest import MakeBundle, OpenSupervisor


@attrs.frozen
class Heirs:
    """Opens a root twice, deletes a container and makes another container of the same id."""

    supervisor: OpenSupervisor
    bundle: MakeBundle
    root: Path
    onlooker: bool

    @contextlib.asynccontextmanager
    async def of(
        self, *args: str, then: tuple[str, ...], **options: Any
    ) -> AsyncIterator[tuple[Container, Container]]:
        """Yield the deleted container, as its owner or an onlooker has it, and the later one."""
        async with self.supervisor(self.root) as sup, self.supervisor(self.root) as second:
            first = await sup.create("a", self.bundle(*args), **options)
            await first.start()
            await second.adopt()
            old = second["a"] if self.onlooker else first
            await first.delete(force=True)
            async with await sup.create("a", self.bundle(*then), **options) as new:
                await new.start()
                yield old, new


@pytest.fixture(params=["owner", "onlooker"])
def heirs(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, request: pytest.FixtureRequest
) -> Heirs:
    """Containers that follow each other, seen by their owner or by another supervisor."""
    return Heirs(supervisor, bundle, root, request.param == "onlooker")


async def test_kill(heirs: Heirs) -> None:
    """Both containers have the same cgroup, and a kill by the old handle reaches no process of the
    later one."""
    async with heirs.of("sleep", "60", then=("sleep", "61")) as (old, new):
        with pytest.raises(ProcessEnded) as caught:
            old.kill()
        assert caught.value.container == "a"
        with trio.move_on_after(0.2):
            await new.wait()
        assert new.status is None


async def test_input(heirs: Heirs) -> None:
    """Both containers have the same fifos, and the old handle doesn't close the later one's
    input."""
    async with heirs.of("sleep", "60", then=("cat",), stdin=PIPE, stdout=PIPE) as (old, new):
        assert old.stdin is not None
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await old.stdin.send_all(b"not for you")
        with pytest.raises(ProcessEnded):
            old.close_stdin()
        assert new.stdin is not None and new.stdout is not None
        await new.stdin.send_all(b"still open")
        assert await new.stdout.receive_some() == b"still open"


async def test_terminal(heirs: Heirs) -> None:
    """The old handle neither resizes, nor hangs up, nor attaches to the later container's
    terminal."""
    script = "read x; stty size; sleep 61"
    async with heirs.of("sleep", "60", then=("sh", "-c", script), terminal=True) as (old, new):
        for act in (lambda: old.resize(11, 22), old.init.hang_up):
            with pytest.raises(ProcessEnded) as caught:
                act()
            assert caught.value.container == "a"
        with pytest.raises(ProcessEnded):
            await old.attach()
        async with await new.attach() as terminal:
            await terminal.send_all(b"\n")
            heard = b""
            with trio.fail_after(10):
                while b"24 80" not in heard:
                    heard += await terminal.receive_some()


async def test_log(heirs: Heirs) -> None:
    """A deleted container's log is gone, and the later one's log isn't read in its place."""
    async with heirs.of("sleep", "60", then=("echo", "mine"), stdout=LOG) as (old, new):
        await new.wait()
        with pytest.raises(ContainerNotFound, match="it was deleted, and its logs with it"):
            old.logs()


async def test_log_that_is_being_read(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A reader that follows a log when the container is deleted doesn't go on with the later one's
    log."""
    async with supervisor() as sup:
        old = await sup.create("a", bundle("sh", "-c", "echo old; sleep 60"), stdout=LOG)
        await old.start()
        async with old.logs(follow=True) as records:
            assert (await anext(records)).data == b"old"
            await old.delete(force=True)
            async with await sup.create("a", bundle("echo", "new"), stdout=LOG) as new:
                await new.start()
                await new.wait()
                assert [record async for record in records] == []


async def test_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The handle of a finished exec doesn't act on a later exec of the same id either."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        old = await box.exec(["true"], id="e", terminal=True)
        await old.wait()
        with trio.fail_after(10):
            while "e" in box.processes:
                await trio.sleep(0.002)
        new = await box.exec(["sh", "-c", "read x; stty size"], id="e", terminal=True)
        with pytest.raises(ProcessEnded):
            old.resize(11, 22)
        with pytest.raises(ProcessEnded):
            await old.attach()
        async with await new.attach() as terminal:
            await terminal.send_all(b"\n")
            assert b"24 80" in b"".join([chunk async for chunk in terminal])
