"""Readers of a log that come back: a loss is reported, whatever happened to the log's files."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    LOG,
    PIPE,
    Cause,
    Container,
    ExitStatus,
    InvalidValue,
    LogFile,
    LogRecord,
    Process,
    Source,
)
from supervisor.stdio._log_files import LogFiles
from supervisor.stdio._log_index import Cursor
from supervisor.stdio._logs import _nanoseconds
from tests.conftest import MakeBundle, OpenSupervisor

SMALL = LogFile(max_bytes=32 * 1024, files=3)
COUNTING = 'i=0; while read n; do while [ "$i" -lt "$n" ]; do i=$((i+1)); echo line-$i; done; done'
"""Counts up to each number that comes in."""

Count = Callable[[int], Awaitable[None]]


async def read(process: Container | Process, **options: Any) -> tuple[list[LogRecord], int]:
    """Return records of a log, and how many gaps there were."""
    async with process.logs(**options) as records:
        return [record async for record in records], records.gaps


def numbers(records: list[LogRecord]) -> list[int]:
    """Return what the lines count."""
    return [int(record.data.removeprefix(b"line-")) for record in records]


def counter(box: Container | Process) -> Count:
    """Return what has a container count up to a number, and waits until that is in the log."""

    async def count(number: int) -> None:
        assert box.stdin is not None
        await box.stdin.send_all(b"%d\n" % number)
        with trio.fail_after(30):
            while (records := (await read(box, tail=1))[0]) == [] or numbers(records) != [number]:
                await trio.sleep(0.01)

    return count


# ---- times ---------------------------------------------------------------------------------


def test_a_moment_is_never_later() -> None:
    """A record's `at` is never later than the record; rounding once left half of the records
    out."""
    chance = random.Random(1)
    for _ in range(2000):
        at_ns = chance.randrange(1_700_000_000 * 10**9, 1_800_000_000 * 10**9)
        record = LogRecord(at_ns, "stdout", False, b"")
        status = ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=0, at_ns=at_ns)
        assert record.at == status.at
        for since in (record.at, record.at.timestamp(), at_ns / 1e9, at_ns):
            assert 0 <= at_ns - _nanoseconds(since) < 2000


async def test_from_and_to_a_record(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """``since`` and ``until`` include both ends in every notation, and exclude earlier or later
    records."""
    spec = bundle("sh", "-c", COUNTING)
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        for number in (10, 20, 30):  # some milliseconds lie between
            await counter(box)(number)
        every, _ = await read(box)
        one, two = every[10], every[19]
        for first, last in (
            (one.at, two.at),
            (one.at_ns, two.at_ns),
            (one.at_ns / 1e9, two.at_ns / 1e9),
            (one.at.astimezone().replace(tzinfo=None), two.at.timestamp()),
        ):
            found, _ = await read(box, since=first, until=last)
            assert found == every[10:20]
        assert (await read(box, since=one.at_ns // 10**9 - 60))[0] == every  # seconds
        assert (await read(box, until=0))[0] == []
        for wrong in ("now", True, 10**400, float("nan"), float("inf"), b"1"):
            with pytest.raises(InvalidValue, match="until"):
                box.logs(until=wrong)  # type: ignore[arg-type]


async def test_following_until(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Following ends at ``until``, even without output then, or at the first later record."""
    spec = bundle("sh", "-c", "echo line-1; read x; echo line-2; sleep 100")
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        with trio.fail_after(20):
            soon = datetime.now(UTC) + timedelta(seconds=0.5)
            records, _ = await read(box, follow=True, until=soon)
            assert numbers(records) == [1] and datetime.now(UTC) >= soon
            box.close_stdin()
            async with box.logs(follow=True) as following:
                later = [await anext(following) for _ in range(2)]
            before = (later[0].at_ns + later[1].at_ns) // 2
            assert numbers((await read(box, follow=True, until=before))[0]) == [1]


# ---- coming back ---------------------------------------------------------------------------


async def test_visits(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """Each visit goes on where the last one ended, across rotations and supervisors; a loss is a
    gap."""
    spec = bundle("sh", "-c", COUNTING)
    seen: list[int] = []
    cursor = None
    async with supervisor(root) as sup:
        box = await sup.create("a", spec, stdin=PIPE, stdout=SMALL)
        await box.start()
        for number in (10, 500, 1000, 1700):
            await counter(box)(number)
            records, gaps = await read(box, after=cursor)
            seen += numbers(records)
            assert gaps == 0 and seen == list(range(1, number + 1))
            assert (await read(box, after=records[-1].cursor)) == ([], 0)
            cursor = records[-1].cursor
        await counter(box)(20_000)
        with trio.fail_after(10):
            records, gaps = await read(box, after=cursor)
        assert gaps == 1 and numbers(records)[-1] == 20_000 and numbers(records)[0] > 1701
        kept = await read(box)
        assert kept == (records, 0)
    async with supervisor(root) as sup, sup["a"] as box:
        middle = records[len(records) // 2]
        rest, gaps = await read(box, after=middle.cursor)
        assert gaps == 0 and rest == records[len(records) // 2 + 1 :]
        await counter(box)(20_100)
        rest, gaps = await read(box, after=records[-1].cursor)
        assert gaps == 0 and numbers(rest) == list(range(20_001, 20_101))


async def test_any_record_of_two_streams(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A cursor of each record leads to all later records, of both streams and in any parts."""
    script = "for i in 1 2 3; do echo out-$i; echo err-$i >&2; done; printf %20000s x; printf y >&2"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=LOG, stderr=LOG) as box,
    ):
        await box.start()
        every, _ = await read(box, follow=True)
        assert len({record.cursor for record in every}) == len(every) > 6
        for number, record in enumerate(every):
            assert await read(box, after=record.cursor) == (every[number + 1 :], 0)
            assert (await read(box, after=record.cursor, follow=True))[0] == every[number + 1 :]


async def test_one_file_that_is_read_in_time(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A reader that had read all of a file before the file went gets no gap."""
    log = LogFile(max_bytes=32 * 1024, files=1)
    spec = bundle("sh", "-c", 'while read n; do printf "%${n}s\\n" line-$n; done')
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE, stdout=log) as box:
        await box.start()
        assert box.stdin is not None
        cursor = None
        for number in range(15_990, 16_000):
            await box.stdin.send_all(b"%d\n" % number)
            with trio.fail_after(10):
                while not (found := await read(box, after=cursor))[0]:
                    await trio.sleep(0.01)
            assert [len(record.data) for record in found[0]] == [number] and found[1] == 0
            cursor = found[0][-1].cursor


async def test_no_cursor(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Foreign text, and a record of another container or process, is refused at once."""
    spec = bundle("sh", "-c", "echo line-1; sleep 100")
    async with (
        supervisor() as sup,
        await sup.create("a", spec, stdout=LOG) as box,
        await sup.create("b", spec, stdout=LOG) as other,
    ):
        await box.start()
        await other.start()
        process = await box.exec(["echo", "line-1"], stdout=LOG)
        cursors = []
        for one in (box, other, process):
            with trio.fail_after(10):
                while not (records := (await read(one))[0]):
                    await trio.sleep(0.01)
            cursors.append(records[0].cursor)
        own, *theirs = cursors
        assert own.isprintable() and " " not in own
        changed = [own[:-1], own + "0", own.upper(), f" {own}", own.replace("@", "@1"), own * 2]
        for wrong in (*theirs, "", "0", "line-1", own.encode(), 1, True, *changed):
            with pytest.raises(InvalidValue, match="after"):
                box.logs(after=wrong)  # type: ignore[arg-type]
        assert await read(box, after=own) == ([], 0)


async def test_lines_that_look_like_records(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A container's output is never taken for a record, a time or a file of the log."""
    forged = "2036-01-31T12:34:56.123456789Z stdout F line-0"
    script = f'read x; for i in $(seq 400); do printf "{forged}\\n{forged}\\r"; done; echo'
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sh", "-c", script), stdin=PIPE, stdout=SMALL) as box,
    ):
        await box.start()
        box.close_stdin()
        every, gaps = await read(box, follow=True)
        assert gaps == 0 and len(every) == 401
        assert all(forged.encode() in record.written for record in every)
        assert all(abs(record.at_ns - time.time_ns()) < 3600 * 10**9 for record in every)
        for number in range(0, 400, 37):
            assert await read(box, after=every[number].cursor) == (every[number + 1 :], 0)


# ---- what others do with the files ------------------------------------------------------------


async def test_moved_by_somebody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The log goes on at its own name; the reader gets a gap, and reads no line twice.

    The log once went on in the moved file, where no reader looks.
    """
    spec = bundle("sh", "-c", COUNTING)
    log = root / "a/logs/init.log"
    async with supervisor(root) as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        await counter(box)(10)
        before, _ = await read(box)
        async with box.logs(follow=True) as following:
            for _ in before:
                await anext(following)
            log.rename(f"{log}-20360131")
            await counter(box)(20)
            records, gaps = await read(box, after=before[-1].cursor)
            assert (numbers(records), gaps) == (list(range(11, 21)), 1)
            with trio.fail_after(10):
                assert [await anext(following) for _ in records] == records
            assert following.gaps == 1
        assert await read(box) == (records, 0)
        assert (await read(box, after=records[0].cursor)) == (records[1:], 0)


@pytest.mark.parametrize("caught_up", [True, False])
async def test_emptied_by_somebody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, caught_up: bool
) -> None:
    """A reader goes on after a log was emptied (copytruncate) and grew, even to the old length."""
    spec = bundle("sh", "-c", COUNTING)
    log = root / "a/logs/init.log"
    async with supervisor(root) as sup, await sup.create("a", spec, stdin=PIPE, stdout=LOG) as box:
        await box.start()
        await counter(box)(10)
        before, _ = await read(box)
        async with box.logs(follow=True) as following:
            for _ in before if caught_up else before[:5]:
                await anext(following)
            os.truncate(log, 0)
            await counter(box)(60)
            last = before[-1] if caught_up else before[4]
            records, gaps = await read(box, after=last.cursor)
            assert (numbers(records), gaps) == (list(range(11, 61)), 1)
            with trio.fail_after(10):
                rest = [await anext(following)]
                while rest[-1] != records[-1]:
                    rest.append(await anext(following))
            assert rest[-len(records) :] == records and following.gaps == 1
            assert numbers(rest) == sorted(set(numbers(rest)))


# ---- tail ----------------------------------------------------------------------------------


async def test_tail_counts_lines(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A line of many parts is one; so is one that isn't ended. Those of two streams are apart."""
    script = (
        "echo a; printf %40000s b; echo >&2 c; echo; printf %40000s d; read x;"
        "printf e >&2; read x; echo; echo >&2 f"
    )
    spec = bundle("sh", "-c", script)
    async with (
        supervisor() as sup,
        await sup.create("a", spec, stdin=PIPE, stdout=LOG, stderr=LOG) as box,
    ):
        await box.start()
        box.close_stdin()
        every, _ = await read(box, follow=True)

        def lines(stream: str) -> list[bytes]:
            return b"".join(one.written for one in every if one.stream == stream).splitlines()

        order: list[tuple[str, bytes]] = []  # by the end of each line
        rest = {"stdout": lines("stdout"), "stderr": lines("stderr")}
        for record in every:
            if not record.partial:
                order.append((record.stream, rest[record.stream].pop(0)))
        assert len(order) == 5 and not rest["stdout"] + rest["stderr"]
        for count in range(8):
            found, _ = await read(box, tail=count)
            text = dict.fromkeys(("stdout", "stderr"), b"")
            for record in found:
                text[record.stream] += record.written
            for stream, printed in text.items():
                wanted = [line for name, line in order[5 - min(count, 5) :] if name == stream]
                assert printed.splitlines() == wanted, count
            assert found == [record for record in every if record in found]
        assert (await read(box, tail=1, after=every[-2].cursor))[0] == every[-1:]
        assert (await read(box, tail=9, after=every[-2].cursor))[0] == every[-1:]
        assert (await read(box, tail=9, until=0))[0] == []


# ---- the same id again ---------------------------------------------------------------------


async def test_an_id_that_is_used_again(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The second process has a log of its own, which the first one's shim doesn't write to.

    The two once had one log, in which a line's process was unknown.
    """
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sleep", "100"), stdout=LOG) as box,
    ):
        await box.start()
        first = await box.exec(["echo", "line-1"], id="e", stdout=LOG)
        await first.wait()
        (record,), _ = await read(first, follow=True)
        with trio.fail_after(10):
            while len(box.processes) > 1:
                await trio.sleep(0.01)
        second = await box.exec(["echo", "line-2"], id="e", stdout=LOG)
        await second.wait()
        records, gaps = await read(second, follow=True)
        assert (numbers(records), gaps) == ([2], 0)
        with pytest.raises(InvalidValue, match="later process"):
            first.logs()
        with pytest.raises(InvalidValue, match="another log"):
            second.logs(after=record.cursor)
        assert b"line-1" in (root / "a/logs/e.log.1").read_bytes()
        assert b"line-1" not in (root / "a/logs/e.log").read_bytes()


# ---- logs of older shims ---------------------------------------------------------------------


def write(path: Path, second: int, *words: str) -> None:
    """Write a file of a log, with a line for each word."""
    stamp = f"2026-01-31T12:34:{second}.000000000Z"
    path.write_text("".join(f"{stamp} stdout F {word}\n" for word in words))


def every_record(files: LogFiles) -> list[LogRecord]:
    """Return the records that are there."""
    return [record for batch in iter(lambda: files.read(9), None) for record in batch]


def test_without_an_index(tmp_path: Path) -> None:
    """Cursors are good as long as their file is there; then the reader gets a gap."""
    path = tmp_path / "init.log"
    write(tmp_path / "init.log.1", 10, "a-one", "b")
    write(path, 20, "c-two", "d")
    files = LogFiles(str(path), lambda: True)
    every = every_record(files)
    assert [record.data for record in every] == [b"a-one", b"b", b"c-two", b"d"]
    for number, record in enumerate(every):
        files.seek(Cursor.parse(record.cursor))
        assert every_record(files) == every[number + 1 :]
        assert files.gaps == 0
    (tmp_path / "init.log.1").unlink()
    files.seek(Cursor.parse(every[0].cursor))
    assert every_record(files) == every[2:]
    assert files.gaps == 1
    files.close()


def test_a_place_that_is_noted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader looks at the index before the first record of a file is there, and again behind
    that.

    The cursors were once those of a log without an index, and the next visit refused them.
    """
    path, place = tmp_path / "init.log", tmp_path / "index"
    stamp = "2026-01-31T12:34:20.000000000Z"
    first = f"log1 {'ab' * 8} {stamp}".ljust(63) + "\n"
    place.write_text(first)

    def begin(self: LogFiles) -> Iterator[str]:
        monkeypatch.undo()
        place.write_text(first + f"700 {stamp}".ljust(63) + "\n")
        write(path, 20, "one", "two")
        yield str(path)

    monkeypatch.setattr(LogFiles, "_names", begin)
    with contextlib.closing(LogFiles(str(path), lambda: True, str(place))) as files:
        one, two = every_record(files)
        files.seek(Cursor.parse(one.cursor))
        assert every_record(files) == [two] and files.gaps == 0
        with pytest.raises(InvalidValue):
            files.seek(Cursor("00" * 30, 0))


def test_a_file_whose_place_is_forgotten(tmp_path: Path) -> None:
    """A file whose place is forgotten is read, and its cursors are good as long as the file is
    there."""
    path, place = tmp_path / "init.log", tmp_path / "index"
    write(tmp_path / "init.log.1", 20, "one", "two")
    write(path, 30, "three")
    stamps = [f"2026-01-31T12:34:{second}.000000000Z" for second in (10, 30)]
    lines = [f"log1 {'ab' * 8} {stamps[0]}", f"700 {stamps[1]}"]
    place.write_text("".join(line.ljust(63) + "\n" for line in lines))
    with contextlib.closing(LogFiles(str(path), lambda: True, str(place))) as files:
        every = every_record(files)
        assert [record.data for record in every] == [b"one", b"two", b"three"]
        for number, record in enumerate(every):
            files.seek(Cursor.parse(record.cursor))
            assert every_record(files) == every[number + 1 :]
        assert files.gaps == 0
