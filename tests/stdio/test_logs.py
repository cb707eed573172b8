"""LOG: what the shim writes down, and what a reader gets."""

from __future__ import annotations

import contextlib
import math
import os
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    LOG,
    PIPE,
    STDOUT,
    InvalidValue,
    LogFile,
    LogRecord,
    Logs,
    Process,
    StateCorrupt,
)
from supervisor.stdio._log_files import LogFiles
from supervisor.stdio._logs import log_tail
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import Choice
from tests.support.streams import pattern
from tests.support.victim import Victims

SMALL = LogFile(max_bytes=64 * 1024, files=3)
NO_TIMES: list[dict[str, Any]] = [
    {"since": since} for since in (math.inf, -math.inf, math.nan, 10**400)
]


async def records_of(process: Any, **options: Any) -> list[LogRecord]:
    """Return all records of a process's log."""
    return [record async for record in process.logs(**options)]


def written(records: list[LogRecord], stream: str) -> bytes:
    """Return what a stream's records say that was written."""
    return b"".join(record.written for record in records if record.stream == stream)


async def test_both_streams(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Each record has a time, a stream and bytes; the joined bytes are what was written."""
    script = "echo out; printf '\\377\\000\\n' >&2; echo; printf end"
    begin = datetime.now(UTC)
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=LOG, stderr=LOG) as box,
    ):
        await box.start()
        records = await records_of(box, follow=True)
        assert written(records, "stdout") == b"out\n\nend"
        assert written(records, "stderr") == b"\xff\0\n"
        assert all(begin <= record.at <= datetime.now(UTC) for record in records)
        assert await records_of(box) == records
        assert box.stdout is None and box.stderr is None


async def test_long_lines(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A line of a megabyte is cut into parts, and is the same when they are joined."""
    content = pattern(1 << 20).replace(b"\n", b" ") + b"\n" + b"x" * 16384 + b"\n" + b"no end"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("cat"), stdin=PIPE, stdout=LOG) as box,
    ):
        await box.start()
        assert box.stdin is not None
        async with box.stdin as stdin:
            await stdin.send_all(content)
        records = await records_of(box, follow=True)
        assert written(records, "stdout") == content
        assert max(len(record.data) for record in records) == 16384
        assert [record.partial for record in records[-2:]] == [False, True]


async def test_the_format(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The file has the format that existing log collectors read."""
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("echo", "hello you"), stdout=LOG, stderr=STDOUT) as box,
    ):
        await box.start()
        await records_of(box, follow=True)
        stamp, stream, tag, text = (root / "a/logs/init.log").read_text().split(" ", 3)
        assert (stream, tag, text) == ("stdout", "F", "hello you\n")
        assert abs(datetime.fromisoformat(stamp).timestamp() - time.time()) < 60


async def test_a_prompt_is_seen(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A line without an end can be read before the end comes."""
    spec = bundle("sh", "-c", "printf 'name? '; read x; echo $x")
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        assert box.stdin is not None
        with trio.fail_after(10):
            async with box.logs(follow=True) as records:
                prompt = await anext(records)
                assert (prompt.data, prompt.partial) == (b"name? ", True)
                await box.stdin.send_all(b"me\n")
                answer = await anext(records)
                assert (answer.data, answer.partial) == (b"me", False)


async def test_bounds(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """At full speed the log stays within the bounds; a follower sees every kept line once."""
    lines = 60_000
    script = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line-$i; done"
    seen: list[int] = []
    sizes: list[int] = []
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=SMALL) as box,
    ):
        logs = root / "a/logs"

        async def measure() -> None:
            while True:
                for path in logs.iterdir():
                    with contextlib.suppress(FileNotFoundError):  # renamed just now
                        sizes.append(path.stat().st_size)
                await trio.sleep(0.003)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure)
            await box.start()
            async for record in box.logs(follow=True):
                assert not record.partial
                seen.append(int(record.data.removeprefix(b"line-")))
            nursery.cancel_scope.cancel()
        kept = [int(record.data.removeprefix(b"line-")) for record in await records_of(box)]
        names = {path.name for path in logs.iterdir()}
    assert names == {"init.log", "init.log.1", "init.log.2"}
    assert max(sizes) <= SMALL.max_bytes
    assert kept == list(range(kept[0], lines + 1)) and len(kept) > 2000
    assert seen == sorted(set(seen)) and seen[-len(kept) :] == kept


async def test_overtaken(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A reader that rotation overtakes gets a gap; one that keeps up, or comes later, doesn't."""
    script = "echo first; read x; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line-$i; done"
    spec = bundle("sh", "-c", script)
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=SMALL) as box:
        await box.start()
        async with box.logs(follow=True) as slow:
            assert (await anext(slow)).data == b"first"
            box.close_stdin()
            await box.wait()
            await records_of(box, follow=True)  # to the end of the log, which is after init's
            late = box.logs(follow=True)
            kept = [record async for record in late]
            seen = [record async for record in slow]  # the rest of the open file, then what is left
            assert seen[0].data == b"line-1" and seen[-len(kept) :] == kept
            assert len(seen) < 20_000
            assert (slow.gaps, late.gaps) == (1, 0)


def test_rotated_while_the_next_file_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rotations during the walk over the files don't have one of them left out."""
    path = tmp_path / "init.log"

    def write(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"2026-01-31T12:34:56.0Z stdout F {text}\n")

    def rotate_twice(self: LogFiles) -> Iterator[str]:
        monkeypatch.undo()
        yield str(path)
        (tmp_path / "init.log.1").rename(tmp_path / "init.log.3")
        path.rename(tmp_path / "init.log.2")
        write("init.log.1", "c")
        write("init.log", "d")
        yield from (f"{path}.{number}" for number in range(1, 4))

    write("init.log.1", "a")
    write("init.log", "b")
    with contextlib.closing(LogFiles(str(path), lambda: True)) as files:
        assert [record.data for record in files.read(1) or ()] == [b"a"]
        monkeypatch.setattr(LogFiles, "_names", rotate_twice)
        rest = [record.data for batch in iter(lambda: files.read(9), None) for record in batch]
        assert rest == [b"b", b"c", b"d"]
        assert files.gaps == 0


async def read_log(path: Path, **options: Any) -> list[bytes]:
    """Return the data of the records of a log that is complete."""

    async def over() -> None:
        """The log is complete."""

    logs = Logs(
        str(path),
        is_there=lambda: True,
        follow=False,
        since=None,
        tail=None,
        is_complete=lambda: True,
        wait_complete=over,
        **options,
    )
    return [record.data async for record in logs]


async def test_what_is_no_record(tmp_path: Path) -> None:
    """Lines that are no records, like the zeros after a disk's crash, are left out.

    Such lines were once held in memory as one line, copied with each new chunk.
    """
    path = tmp_path / "init.log"
    line = b"2026-01-31T12:34:56.0Z stdout F %s\n"
    with path.open("wb") as file:
        file.write(line % b"one")
        file.seek(64 << 20, 1)
        file.write(b"\n" + line % b"two" + line % (b"x" * 200_000) + line % (b"y" * 16384))
        file.write(line.rstrip(b"\n") % (b"z" * 200_000))
    tracemalloc.start()
    try:
        found = await read_log(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [b"one", b"two", b"y" * 16384]
    assert peak < 4 << 20


async def test_what_is_no_record_holds_nobody_up(tmp_path: Path) -> None:
    """Skipping lines that are no records lets other tasks run, however long the skipping takes."""
    path = tmp_path / "init.log"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    turns = 0

    class Turns(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            nonlocal turns
            turns += 1

    instrument = Turns()
    trio.lowlevel.add_instrument(instrument)
    try:
        assert await read_log(path) == []
    finally:
        trio.lowlevel.remove_instrument(instrument)
    assert turns >= 64


def test_the_tail_is_bounded(tmp_path: Path) -> None:
    """A tail reads the last records, and of the log only their size, even with the longest
    record."""
    path = tmp_path / "init.log"
    line = b"2026-01-31T12:34:56.0Z stdout F %s\n"
    path.write_bytes(line % b"first" + line % (b"x" * 100_000) + line % (b"y" * 16384))
    assert log_tail(str(path)) == b"y" * 16384 + b"\n"
    assert log_tail(str(tmp_path / "none")) == b""


async def test_since_and_tail(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A reader may begin at a time, or with the last records."""
    spec = bundle("sh", "-c", "echo 1; echo 2; read x; echo 3; echo 4")
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        with trio.fail_after(10):
            while len(await records_of(box)) < 2:
                await trio.sleep(0.01)
        between = datetime.now(UTC)
        box.close_stdin()
        all_of_them = await records_of(box, follow=True)

        async def data(**options: Any) -> list[bytes]:
            return [record.data for record in await records_of(box, **options)]

        assert await data() == [b"1", b"2", b"3", b"4"]
        assert await data(since=between) == [b"3", b"4"]
        assert await data(since=between.timestamp()) == [b"3", b"4"]
        assert await data(since=between + timedelta(hours=1)) == []
        assert await data(tail=1) == [b"4"]
        assert await data(tail=0) == [] and await data(tail=9) == [b"1", b"2", b"3", b"4"]
        assert await data(tail=3, since=between) == [b"3", b"4"]
        assert await data(tail=1, follow=True) == [b"4"]
        assert [record.data for record in all_of_them] == [b"1", b"2", b"3", b"4"]
        for wrong in ({"tail": -1}, {"tail": True}, {"since": "now"}, *NO_TIMES):
            with pytest.raises(InvalidValue):
                box.logs(**wrong)


async def test_a_writer_is_never_blocked(
    choice: Choice,
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """The log goes on while no supervisor runs, and is read by the next one."""
    script = "dd if=/dev/zero bs=65536 count=64 2>/dev/null; echo; echo end"
    containers = {"a": bundle("sh", "-c", script).path}
    with victim(
        choice.runtime(),
        cgroup_parent,
        root,
        containers=containers,
        started=["a"],
        log={"max_bytes": 64 << 20},
    ):
        pass
    async with supervisor(root) as sup, sup["a"] as box:
        with trio.fail_after(20):
            assert (await box.wait()).code == 0
            records = await records_of(box, follow=True)
        assert written(records, "stdout") == bytes(64 * 65536) + b"\nend\n"


async def test_of_an_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec has a log of its own, which stays with the container."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sleep", "60"), stdout=LOG) as box,
    ):
        await box.start()
        process = await box.exec(["echo", "hi"], stdout=LOG, id="e")
        assert (await process.wait()).code == 0
        assert written(await records_of(process, follow=True), "stdout") == b"hi\n"
        with trio.fail_after(5):
            while len(box.processes) > 1:
                await trio.sleep(0.01)
        assert written(await records_of(process), "stdout") == b"hi\n"
        assert await records_of(box) == []


async def test_a_grandchild_writes_on(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Late output of a background program is logged; following doesn't wait for that output."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        script = "(read x < /tmp/gate; echo late) & echo early"
        await box.run(["busybox", "mkfifo", "/tmp/gate"])
        process: Process = await box.exec(["sh", "-c", script], stdout=LOG)
        with trio.fail_after(10):
            assert written(await records_of(process, follow=True), "stdout") == b"early\n"
            await box.run(["sh", "-c", "echo > /tmp/gate"])
            while b"late\n" not in written(await records_of(process), "stdout"):
                await trio.sleep(0.01)


async def test_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A cancelled follower loses no record and leaves nothing open."""
    spec = bundle("sh", "-c", "echo one; sleep 60")
    async with supervisor() as sup, await sup.create("a", spec, stdout=LOG) as box:
        await box.start()
        async with box.logs(follow=True) as records:
            assert (await anext(records)).data == b"one"
            with trio.move_on_after(0.2) as scope:
                await anext(records)
            assert scope.cancelled_caught
        with pytest.raises(StopAsyncIteration):
            await anext(records)


async def test_tail_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A reader that is cancelled during the skipping gets the last records at the next call."""
    spec = bundle("sh", "-c", "echo one; echo two; echo three")
    async with supervisor() as sup, await sup.create("a", spec, stdout=LOG) as box:
        await box.start()
        await records_of(box, follow=True)
        for steps in range(1, 5):
            got: list[LogRecord] = []
            async with box.logs(tail=2) as records, trio.open_nursery() as nursery:

                async def read(records: Logs, got: list[LogRecord]) -> None:
                    got.append(await anext(records))

                nursery.start_soon(read, records, got)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    got += [record async for record in records]
            assert [record.data for record in got] == [b"two", b"three"], steps


async def test_without_a_log(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Reading without a log is an error that says what to do."""
    async with supervisor() as sup, await sup.create("a", bundle("true")) as box:
        with pytest.raises(InvalidValue, match="stdout=LOG"):
            box.logs()


@pytest.mark.parametrize(
    "wrong",
    [
        {"stdin": LOG},
        {"stdout": LOG, "stderr": LogFile(files=2)},
        {"terminal": True, "stdout": LOG},
    ],
    ids=str,
)
async def test_what_does_not_go_together(
    supervisor: OpenSupervisor, bundle: MakeBundle, wrong: dict[str, Any]
) -> None:
    """Options that don't go together are refused before anything is touched."""
    async with supervisor() as sup:
        with pytest.raises(InvalidValue):
            await sup.create("a", bundle("true"), **wrong)
        assert not list(sup)


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 1000}, {"max_bytes": 1e9}, {"files": 0}, {"files": True}], ids=str
)
def test_bad_bounds(wrong: dict[str, Any]) -> None:
    """Bounds that can't be kept are refused."""
    with pytest.raises(InvalidValue):
        LogFile(**wrong)


@pytest.mark.parametrize("kind", ["link", "file", "writable", "foreign"])
async def test_a_log_directory_that_is_not_ours(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, kind: str
) -> None:
    """A link had the logs written elsewhere, with root's rights; a file was taken for a process."""
    elsewhere = workdir / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        logs = root / "a" / "logs"
        if kind == "link":
            logs.symlink_to(elsewhere)
        elif kind == "file":
            logs.write_bytes(b"")
        else:
            logs.mkdir()
        if kind == "writable":
            logs.chmod(0o777)
        if kind == "foreign":
            if os.geteuid() != 0:
                pytest.skip("needs root, to act as another user")
            os.chown(logs, 65534, 65534)
        with pytest.raises(StateCorrupt, match="no log can be in it"):
            await box.exec(["echo", "words"], id="e", stdout=LOG)
        assert not (root / "a" / "e").exists()
        assert list(elsewhere.iterdir()) == []
        assert elsewhere.stat().st_mode & 0o777 == 0o700
        if kind in ("link", "file"):
            logs.unlink()
        else:
            logs.rmdir()
        process = await box.exec(["echo", "words"], id="e", stdout=LOG)
        await process.wait()


@pytest.mark.parametrize("kind", ["link", "fifo", "writable"])
async def test_a_log_that_is_not_ours_is_not_read(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, kind: str
) -> None:
    """A log behind a link isn't read, nor a fifo, whose opening once blocked Trio's thread."""
    other = workdir / "other"
    other.write_bytes(b"2026-01-31T12:34:56.123456789Z stdout F secret\n")
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("true"), stdout=LOG) as box:
            await box.start()
            await box.wait()
            log = root / "a" / "logs" / "init.log"
            log.unlink()
            if kind == "link":
                log.symlink_to(other)
            elif kind == "fifo":
                os.mkfifo(log)
            else:
                log.write_bytes(other.read_bytes())
                log.chmod(0o666)
            assert [record async for record in box.logs()] == []
