"""Output that the shim copies into a log."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.logs import (
    CONTENT_MAX,
    MUCH,
    Log,
    drained,
    finish_writers,
    joined,
    launch_traced,
    sleeping,
    write_all,
    writing,
)
from tests.native.rig import (
    SLEEP,
    Rig,
    runtime,
    shell,
    unread,
)
from tests.native.tracing import needs_strace, release
from tests.support.leaks import wait_for
from tests.support.processes import status_of

SEED = 20261124

pytestmark = pytest.mark.usefixtures("directory")


# ---- byte for byte -------------------------------------------------------------------------

LINES = [
    b"\n",
    b"x\n",
    b"x" * (CONTENT_MAX - 1) + b"\n",
    b"x" * CONTENT_MAX + b"\n",
    b"x" * (CONTENT_MAX + 1) + b"\n",
    b"y" * (1 << 20) + b"\n",
    b"no newline at the end",
    b"z" * CONTENT_MAX,
    b"z" * (2 * CONTENT_MAX + 1),
    b"\xff\xfe\x80 no UTF-8, \0 a NUL, \r\n\x0b\x0c\x1c\x85\xe2\x80\xa8 no line's end\r\n",
    b"2026-01-31T12:34:56.123456789Z stdout F a forged record\n",
    b"\n\n\n first\nsecond \n\nlast",
]


@pytest.mark.parametrize("data", LINES, ids=range(len(LINES)))
def test_any_line(rig: Rig, data: bytes) -> None:
    """Joined up, the records are what was written; each F stands for a newline."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*writing((1, data))), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    records = log.records()
    assert joined(records) == data
    assert [record.tag for record in records].count("F") == data.count(b"\n")
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_lines_that_fit_are_not_cut(rig: Rig) -> None:
    """A line of up to 16 KiB that comes in one piece is one record."""
    lines = [b"x" * size + b"\n" for size in (0, 1, CONTENT_MAX - 1, CONTENT_MAX)]
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*writing(*((1, line) for line in lines))), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    whole = [record.written for record in log.records() if record.written != b"\n"]
    assert set(whole) >= {b"x\n", lines[2]}  # a chunk of 64 KiB may end within a later one


def test_two_streams(rig: Rig) -> None:
    """A stream's records hold that stream's bytes, whatever lies between the records."""
    chance = random.Random(SEED)
    pieces = [(chance.choice((1, 2)), chance.randbytes(chance.randrange(3000))) for _ in range(200)]
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*writing(*pieces)), *log.options("stdout", "stderr"))
    rig.made()
    assert rig.end() == (0, 0)
    records = log.records()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        assert joined(records, name) == b"".join(data for to, data in pieces if to == fd)
    times = [record.at_ns for record in records]
    assert times == sorted(times)


def test_one_stream_for_both(rig: Rig) -> None:
    """With stderr as stdout, the order of all writes is kept."""
    log = Log(rig, max_bytes=MUCH, files=1)
    command = runtime(*writing((1, b"one\n"), (2, b"two\n"), (1, b"three")))
    rig.launch(command, *log.options(), "--stderr", "stdout")
    rig.made()
    assert rig.end() == (0, 0)
    assert log.text() == b"one\ntwo\nthree"


def test_the_process_can_open_it_again(rig: Rig) -> None:
    """The process has a fifo, and any user can open the fifo by /dev/stdout."""
    log = Log(rig, max_bytes=MUCH, files=1)
    script = "echo one; echo two >/proc/self/fd/1; echo three"
    rig.launch(runtime(*shell(script)), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert log.text() == b"one\ntwo\nthree\n"


pieces_of_output = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(
            st.binary(max_size=20),
            st.lists(st.sampled_from([b"\n", b"a", b"\0\xff", b"b" * 5000]), max_size=20).map(
                b"".join
            ),
            st.integers(CONTENT_MAX - 2, CONTENT_MAX + 2).map(lambda size: b"c" * size),
        ),
        st.booleans(),
    ),
    max_size=8,
)


def test_any_chunks(rig: Rig) -> None:
    """However the writes are cut, and the shim's reads, the records say what was written."""
    log = Log(rig, max_bytes=1 << 40, files=1)
    sleeping(rig, log, "stdout", "stderr")
    fds = {name: log.writer(name) for name in ("stdout", "stderr")}
    written = dict.fromkeys(fds, b"")

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(pieces_of_output)
    def example(pieces: Sequence[tuple[str, bytes, bool]]) -> None:
        for name, data, pause in pieces:
            write_all(fds[name], data)
            written[name] += data
            if pause:
                wait_for(drained(rig, fds[name]), "a shim that has read it")

    example()
    finish_writers(rig, *fds.values())
    records = log.records()
    for name, data in written.items():
        assert joined(records, name) == data


# ---- lines that aren't ended ---------------------------------------------------------------


def test_a_prompt(rig: Rig) -> None:
    """An unfinished line appears as a part after a tenth of a second; the rest appears later."""
    log = Log(rig, max_bytes=MUCH, files=1)
    sleeping(rig, log)
    fd = log.writer()
    before_ns = time.time_ns()
    write_all(fd, b"name? ")
    wait_for(lambda: log.text() == b"name? ", "a prompt")
    write_all(fd, b"Alice\n")
    wait_for(lambda: log.text() == b"name? Alice\n", "its answer")
    first, second = log.records()
    assert (first.tag, second.tag) == ("P", "F")
    assert first.at_ns - before_ns > 90_000_000
    wait_for(rig.idle, "a shim that waits without a limit")
    finish_writers(rig, fd)


def test_a_prompt_beside_a_busy_stream(rig: Rig) -> None:
    """A prompt appears although the other stream is never quiet: each stream has its own time."""
    log = Log(rig, max_bytes=MUCH, files=1)
    sleeping(rig, log, "stdout", "stderr")
    out, err = log.writer("stdout"), log.writer("stderr")
    write_all(err, b"password: ")

    def seen() -> bool:
        write_all(out, b"tick\n")
        return log.text("stderr") == b"password: "

    wait_for(seen, "a prompt")
    finish_writers(rig, out, err)


def test_dots(rig: Rig) -> None:
    """A line that grows and grows is seen growing."""
    log = Log(rig, max_bytes=MUCH, files=1)
    sleeping(rig, log)
    fd = log.writer()

    def seen() -> bool:
        write_all(fd, b".")
        return log.text() != b""

    wait_for(seen, "some dots")
    finish_writers(rig, fd)


# ---- rotation ------------------------------------------------------------------------------


# ---- a full disk ---------------------------------------------------------------------------


# ---- the end -------------------------------------------------------------------------------


# ---- refused -------------------------------------------------------------------------------


# ---- what isn't ours -----------------------------------------------------------------------


@release
def test_the_end_of_a_late_line(rig: Rig) -> None:
    """A shim that wakes up late reads first: new bytes may end the line that is due."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options())
    rig.running()
    fd = log.writer()
    while True:  # until the stop came before the line was due (after 100 ms)
        written_ns = time.monotonic_ns()
        write_all(fd, b"name? ")
        wait_for(lambda: unread(fd) == 0, "a shim that has read it")
        rig.stop()
        read_ns = time.monotonic_ns()
        if read_ns - written_ns < 90_000_000:
            break
        os.kill(rig.pid, signal.SIGCONT)
        write_all(fd, b"\n")
        wait_for(lambda: log.text().endswith(b"\n"), "the end of the line")
    before = len(log.records())
    wait_for(lambda: time.monotonic_ns() - read_ns > 150_000_000, "a line that is due")
    write_all(fd, b"Alice\n")
    os.kill(rig.pid, signal.SIGCONT)
    wait_for(lambda: log.text().endswith(b"Alice\n"), "all of it")
    [record] = log.records()[before:]
    assert (record.tag, record.written) == ("F", b"name? Alice\n")
    rig.drop(fd)
    rig.control("2 9 0\n")
    assert rig.end() == (137, signal.SIGKILL)


@release
@needs_strace
def test_the_end_of_a_line_that_comes_after_the_look(rig: Rig) -> None:
    """A shim that is delayed between its look and the end of its turn looks once more."""
    log = Log(rig, max_bytes=MUCH, files=1)
    inject = ["-P", str(log.path), "-e", "inject=write:signal=SIGSTOP:when=1"]
    launch_traced(rig, "exec sleep 1000", log, *inject)
    rig.running()
    fd = log.writer()
    write_all(fd, b"Hello\nname? ")
    wait_for(lambda: log.text() == b"Hello\n", "the first write")
    wait_for(lambda: status_of(rig.pid)["State"].startswith("t"), "a shim that is held up in it")
    held_ns = time.monotonic_ns()
    wait_for(lambda: time.monotonic_ns() - held_ns > 150_000_000, "a line that is due")
    write_all(fd, b"Alice\n")
    os.kill(rig.pid, signal.SIGCONT)
    wait_for(lambda: log.text().endswith(b"Alice\n"), "all of it")
    assert [record.written for record in log.records()] == [b"Hello\n", b"name? Alice\n"]
    rig.drop(fd)
    rig.control("2 9 0\n")
    assert rig.end() == (137, signal.SIGKILL)
