"""A shim's fifos: `exit`, which reports the end, and `control`, which the shim reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import ProcessEnded, TooManyFiles
from supervisor.shim import ExitFifo, send_line
from tests.support.descriptors import only

pytestmark = pytest.mark.runtimes("fake")


async def test_a_fifo_whose_writer_has_gone(tmp_path: Path) -> None:
    """An `exit` that was opened after the writer went wakes no reader: the reader reads first."""
    os.mkfifo(tmp_path / "exit")
    fifo = ExitFifo(str(tmp_path / "exit"))
    with trio.fail_after(5):
        await fifo.wait_end()
    fifo.close()


async def test_waiting_for_an_exit_that_is_closed(tmp_path: Path) -> None:
    """A task that waits for the end gets ClosedResourceError when the fifo is closed."""
    os.mkfifo(tmp_path / "exit")
    fifo = ExitFifo(str(tmp_path / "exit"))
    writer = os.open(tmp_path / "exit", os.O_WRONLY)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await fifo.wait_end()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fifo.close()
    os.close(writer)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """A `control` that is open for reading and isn't read."""
    path = str(tmp_path / "control")
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path
    os.close(fd)


def test_a_line_without_a_descriptor(control: str) -> None:
    """A shim that couldn't be reached for lack of a descriptor isn't reported as gone."""
    with only(0), pytest.raises(TooManyFiles):
        send_line(control, "3 0 0")
    send_line(control, "3 0 0")


def test_a_line_that_finds_no_room(control: str) -> None:
    """A shim that reads no lines just now isn't reported as gone; a shim without the fifo is."""
    with pytest.raises(BlockingIOError) as caught:
        while True:
            send_line(control, "3 0 0")
    assert not isinstance(caught.value, ProcessEnded)
    with pytest.raises(ProcessEnded):
        send_line(f"{control}-of-nobody", "3 0 0")


@pytest.mark.parametrize("error", [ProcessEnded("it was removed"), TooManyFiles("not one left")])
def test_a_line_that_is_refused_at_the_last_moment(control: str, error: OSError) -> None:
    """What the check raises is raised as it is: both are OSErrors, and once became *the shim is
    gone (None)*."""

    def check() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        send_line(control, "3 0 0", check=check)
    assert caught.value is error
