"""A program's output to a file of the caller's arrives there; where it can't, the error is
reported."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    Container,
    ContainerPool,
    Deadlines,
    DiskFull,
    ProcessFailed,
    StreamFailed,
    StreamFull,
    run_container,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.leaks import wait_for
from tests.support.runtimes import needs_root

SIZE = 150_000
STUCK = 110_000  # more than a pipe holds, less than two: written though never read
PIECE = 4096
WRITES = ["sh", "-c", f"head -c {SIZE} /dev/zero"]
WAYS = ("run_container", "run", "create", "exec")


class SlowReader:
    """A reader that takes a page at times, and so is slower than shims once waited for."""

    def __init__(self, kind: str) -> None:
        self._pause = 0.06
        if kind == "pipe":
            self.reader, self.writer = os.pipe()
        else:
            self._pause = 0.1
            ours, theirs = socket.socketpair()
            # A write continues only when three quarters of that are free.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
            self.reader, self.writer = ours.detach(), theirs.detach()
        self.got = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self.reader, PIECE):
            self.got += len(chunk)
            time.sleep(self._pause)

    async def rest(self) -> int:
        """Wait until no writer is left, and return how much came in all."""
        os.close(self.writer)
        await trio.to_thread.run_sync(self._thread.join)
        os.close(self.reader)
        return self.got


@pytest.mark.runtimes("crun")  # the shim does the copying
@pytest.mark.parametrize(("way", "kind"), [(way, "pipe") for way in WAYS] + [("run", "socket")])
async def test_a_slow_reader_gets_it_all(
    supervisor: OpenSupervisor, bundle: MakeBundle, way: str, kind: str
) -> None:
    """A slow reader gets all output: once the copier was killed 1.5 seconds after the end, and the
    rest was lost silently."""
    reader = SlowReader(kind)
    ended = left = 0.0
    try:
        async with supervisor(deadlines=Deadlines(drain=0.8)) as sup:
            if way == "run_container":
                await run_container(bundle(*WRITES), supervisor=sup, stdout=reader.writer)
                assert reader.got > SIZE - 2 * 65536
            elif way == "create":
                async with await sup.create("a", bundle(*WRITES), stdout=reader.writer) as box:
                    await box.start()
                    assert (await box.wait()).code == 0
                    ended = reader.got
            else:
                async with await sup.create("a", bundle("sleep", "60")) as box:
                    await box.start()
                    if way == "run":
                        await box.run(WRITES, stdout=reader.writer)
                    else:
                        process = await box.exec(WRITES, stdout=reader.writer)
                        assert (await process.wait()).code == 0
                        ended = reader.got
                        await process.wait_copied()
            left = SIZE - ended
    finally:
        got = await reader.rest()
    assert got == SIZE
    if way in ("create", "exec"):
        assert left > 0  # the end was reported before all was taken


@pytest.mark.parametrize("way", WAYS)
async def test_what_nobody_takes_is_given_up_and_told(
    supervisor: OpenSupervisor, bundle: MakeBundle, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """Output that no reader takes is given up, and the run fails; once it was lost silently, and
    the run a success."""
    read_fd, write_fd = os.pipe()
    writes = ["sh", "-c", f"head -c {STUCK} /dev/zero; echo said >&2; exit 3"]
    async with supervisor(deadlines=Deadlines(drain=0.2)) as sup:
        if way == "create":
            async with await sup.create("a", bundle(*writes), stdout=write_fd) as box:
                await box.start()
                assert (await box.wait()).code == 3
            [record] = [one for one in caplog.records if one.levelno >= logging.WARNING]
            assert "a/init: no reader took the rest of stdout" in record.message
        else:
            with pytest.raises(StreamFailed) as caught:
                if way == "run_container":
                    await run_container(
                        bundle(*writes), supervisor=sup, stdout=write_fd, capture_stderr=True
                    )
                else:
                    async with await sup.create("a", bundle("sleep", "60")) as box:
                        await box.start()
                        if way == "run":
                            await box.run(writes, stdout=write_fd, capture_stderr=True)
                        process = await box.exec(writes, stdout=write_fd)
                        await process.wait_copied()
            error = caught.value
            assert (error.stream, error.errno) == ("stdout", errno.ETIMEDOUT)
            assert error.status is not None
            assert error.status.code == 3
            assert "no reader took the rest of stdout" in str(error)
            assert error.stderr == (None if way == "exec" else b"said\n")
            assert pickle.loads(pickle.dumps(error)).stream == "stdout"
            assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
        assert list(sup) == []
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.runtimes("crun")
async def test_a_reader_that_pauses(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A reader that pauses is waited for: only the time since the last read counts, not the whole
    time."""
    read_fd, write_fd = os.pipe()
    heard = bytearray()

    async def read() -> None:
        while len(heard) < SIZE:
            await trio.sleep(0.3)
            heard.extend(await trio.to_thread.run_sync(os.read, read_fd, 20_000))

    async with supervisor() as sup, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await run_container(bundle(*WRITES), supervisor=sup, stdout=write_fd)
    assert len(heard) == SIZE
    os.close(read_fd)
    os.close(write_fd)


async def test_a_reader_that_goes_is_no_failure(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A reader that goes away is no failure: the program gets EPIPE, as from any pipe, and the
    caller its exit status."""
    endless = ["cat", "/dev/zero"]
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    async with supervisor() as sup:
        with pytest.raises(ProcessFailed):
            await run_container(bundle(*endless), supervisor=sup, stdout=write_fd)
        await run_container(bundle("echo", "words"), supervisor=sup, stdout=write_fd)
    os.close(write_fd)


@contextlib.contextmanager
def full(place: Path) -> Iterator[Path]:
    """A file on a file system of four pages."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "full", place], check=True)
    try:
        yield place / "file"
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_write_that_fails(
    supervisor: OpenSupervisor, bundle: MakeBundle, way: str, stream: str
) -> None:
    """A write that fails is reported; once the output was gone, and only a file in a removed
    directory said so."""
    told = ["sh", "-c", f"echo lost {'' if stream == 'stdout' else '>&2'}; exit 0"]
    async with supervisor() as sup:
        with pytest.raises(StreamFull) as caught:
            if way == "run_container":
                await run_container(bundle(*told), supervisor=sup, **{stream: "/dev/full"})
            elif way == "create":
                async with await sup.create("a", bundle(*told), **{stream: "/dev/full"}) as box:
                    await box.start()
                    await box.init.wait_copied()
            else:
                async with await sup.create("a", bundle("sleep", "60")) as box:
                    await box.start()
                    if way == "run":
                        await box.run(told, **{stream: "/dev/full"})
                    process = await box.exec(told, **{stream: "/dev/full"})
                    await process.wait_copied()
        assert list(sup) == []
    error = caught.value
    assert isinstance(error, DiskFull)
    assert (error.stream, error.errno) == (stream, errno.ENOSPC)
    assert error.status is not None
    assert error.status.code == 0
    assert "No space left on device" in str(error)


@needs_root
async def test_a_full_file_system(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path
) -> None:
    """On a full file system the file has as much as fits, and the error says that output is
    missing."""
    with full(workdir / "full") as file:
        async with supervisor() as sup:
            with pytest.raises(StreamFull) as caught:
                await run_container(bundle(*WRITES), supervisor=sup, stdout=file)
        assert caught.value.status is not None
        assert 0 < file.stat().st_size < SIZE


async def test_a_read_that_fails(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A read that fails is reported: once it looked like the end of the input."""
    async with supervisor() as sup:
        with open("/proc/self/mem", "rb", buffering=0) as file:  # at 0 nothing is mapped
            with pytest.raises(StreamFailed) as caught:
                await run_container(bundle("cat"), supervisor=sup, stdin=file)
    assert not isinstance(caught.value, DiskFull)
    assert (caught.value.stream, caught.value.errno) == ("stdin", errno.EIO)
    assert "stdin couldn't be read" in str(caught.value)


async def test_whoever_only_waits_finds_it_in_the_log(
    supervisor: OpenSupervisor, bundle: MakeBundle, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed stream that only `wait` meets is logged for init and for exec, once each."""
    async with supervisor() as sup:
        init = bundle("sh", "-c", "echo lost; read line")
        async with await sup.create("a", init, stdin=subprocess.PIPE, stdout="/dev/full") as box:
            await box.start()
            process = await box.exec(["echo", "lost"], id="e", stdout="/dev/full")
            await process.wait()
            box.close_stdin()
            await box.wait()
    warned = [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warned) == 2
    assert any(one.startswith("a/init: stdout couldn't be written") for one in warned)
    assert any(one.startswith("a/e: stdout couldn't be written") for one in warned)


async def test_a_pool(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container of a pool has its streams from the pool, and the run reports what became of
    them."""
    async with supervisor() as sup:
        async with ContainerPool(
            bundle("true"), size=1, supervisor=sup, stdout="/dev/full"
        ) as pool:
            with pytest.raises(StreamFull):
                await pool.run(["echo", "lost"])


async def test_a_copier_that_is_killed(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The output of a killed copier counts as incomplete, because how much was copied is
    unknown."""
    read_fd, write_fd = os.pipe()
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "60"), stdout=write_fd) as box:
            await box.start()
            assert box.pid is not None
            wait_for(lambda: copiers(box.pid) != [], "a copier")
            for pid in copiers(box.pid):
                os.kill(pid, 9)
            box.kill()
            with pytest.raises(StreamFailed) as caught:
                await box.init.wait_copied()
    assert caught.value.errno == errno.EIO
    os.close(read_fd)
    os.close(write_fd)


def copiers(pid: int | None) -> list[int]:
    """Return the copiers beside a container's process."""
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(one) for one in children if Path(f"/proc/{one}/comm").read_text() == "supervisor-copy\n"
    ]


@pytest.mark.runtimes("runc", "crun")
async def test_copied_after_the_supervisor_has_closed(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim copies on after the supervisor has closed; `wait_copied` waits for that.

    A closed supervisor was once taken for a shim that is gone, and all bytes were there.
    """
    reading, writing = os.pipe()
    statuses = []

    async def wait(box: Container) -> None:
        statuses.append(await box.init.wait_copied())

    received = 0
    async with trio.open_nursery() as nursery:
        async with supervisor(root) as sup:
            box = await sup.create(
                "a", bundle("sh", "-c", "head -c 110000 /dev/zero"), stdout=writing
            )
            os.close(writing)
            await box.start()
            await box.wait()
            nursery.start_soon(wait, box)
            await wait_all_tasks_blocked()
        os.set_blocking(reading, False)
        while True:
            await trio.lowlevel.wait_readable(reading)
            chunk = os.read(reading, 8192)
            if not chunk:
                break
            received += len(chunk)
            await trio.sleep(0.01)
    os.close(reading)
    assert received == 110000 and [status.code for status in statuses] == [0]
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)
