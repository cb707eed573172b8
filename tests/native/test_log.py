"""Output that the shim copies into a log."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.native.logs import CONTENT_MAX, LEAST_BYTES, MUCH, RECORD, Log, joined, parse, write_all
from tests.native.rig import (
    SLEEP,
    Gate,
    Rig,
    Word,
    become,
    children,
    ended,
    root_only,
    runtime,
    shell,
    switches,
    unread,
)
from tests.support.leaks import wait_for

SEED = 20261124


def writing(*pieces: tuple[int, bytes]) -> list[Word]:
    """Return a process that writes each of these pieces to its descriptor."""
    script = """
import json, os, sys
for fd, text in json.load(open(sys.argv[1])):
    rest = text.encode("latin-1")
    while rest:
        rest = rest[os.write(fd, rest):]
"""
    Path("pieces").write_text(json.dumps([(fd, data.decode("latin-1")) for fd, data in pieces]))
    return [sys.executable, "-ISc", script, os.path.abspath("pieces")]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in the test's own directory."""
    monkeypatch.chdir(tmp_path)


def sleeping(rig: Rig, log: Log, *streams: str) -> int:
    """Launch a process that writes nothing, for the test to write; return its pid."""
    rig.launch(runtime(*SLEEP), *log.options(*streams))
    return rig.running()


def finish(rig: Rig) -> None:
    """End the process, and wait until the shim has gone: the log is complete."""
    rig.control("2 9 0\n")
    assert rig.end() == (137, 9)


def drained(rig: Rig, fd: int) -> Callable[[], bool]:
    """Return a condition: the shim has taken all that was written, and waits."""
    return lambda: unread(fd) == 0 and rig.waiting()


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
    """Each stream's records are its own, whatever lies between them."""
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
    """The process has a fifo, which it can open by /dev/stdout whoever it is."""
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


def finish_writers(rig: Rig, *fds: int) -> None:
    """Close these, and end the process."""
    for fd in fds:
        rig.drop(fd)
    finish(rig)


# ---- lines that aren't ended ---------------------------------------------------------------


def test_a_prompt(rig: Rig) -> None:
    """What isn't ended after a tenth of a second appears as a part; its end appears later."""
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
    """A prompt appears although the other stream is never quiet: its time is its own."""
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


def lines_of(chance: random.Random, most_bytes: int) -> Iterator[bytes]:
    """Yield numbered lines without end."""
    for number in itertools.count():
        yield b"%d %s\n" % (number, b"x" * chance.randrange(most_bytes))


@pytest.mark.parametrize("files", [1, 2, 5])
@pytest.mark.parametrize("most_bytes", [200, 20_000])
def test_rotation(rig: Rig, files: int, most_bytes: int) -> None:
    """Neither bound is ever exceeded; what is kept is the last of the output, and all that fits."""
    max_bytes = 40_000
    log = Log(rig, max_bytes=max_bytes, files=files)
    sleeping(rig, log)
    fd = log.writer()
    written = b""
    for line in lines_of(random.Random(SEED), most_bytes):
        write_all(fd, line)
        written += line
        if len(written) % 10 == 0:
            within_bounds(log, max_bytes, files)
        if len(written) > (files + 2) * max_bytes:
            break
    finish_writers(rig, fd)
    within_bounds(log, max_bytes, files)
    assert [path.name for path in log.files] == [
        *(f"output.log.{number}" for number in range(files - 1, 0, -1)),
        "output.log",
    ]
    kept = joined(log.records())
    assert kept
    assert written.endswith(kept)
    for older, newer in itertools.pairwise(log.files):
        first = newer.read_bytes().partition(b"\n")[0] + b"\n"
        assert older.stat().st_size + len(first) > max_bytes


def within_bounds(log: Log, max_bytes: int, files: int) -> None:
    sizes = []
    for path in log.files:
        with contextlib.suppress(FileNotFoundError):  # it is being rotated
            sizes.append(path.stat().st_size)
    assert all(size <= max_bytes for size in sizes)
    assert len({path.name for path in log.files}) <= files


def test_a_file_of_one_record(rig: Rig) -> None:
    """With the least bound, every full record has a file of its own."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=3)
    data = b"".join(bytes([number]) * CONTENT_MAX for number in range(65, 75))
    rig.launch(runtime(*writing((1, data))), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert [len(parse(path.read_bytes())) for path in log.files] == [1, 1, 1]
    assert log.text() == data[-3 * CONTENT_MAX :]


def test_a_new_shim_appends(rig: Rig, tmp_path: Path) -> None:
    """A log that is there already is added to."""
    log = Log(rig, tmp_path / "log", max_bytes=MUCH, files=2)
    rig.launch(runtime(*shell("echo one")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    with contextlib.closing(Rig(rig.programs, tmp_path / "second")) as second:
        options = Log(second, log.path, max_bytes=MUCH, files=2).options()
        second.launch(runtime(*shell("echo two")), *options)
        second.made()
        assert second.end() == (0, 0)
    assert log.text() == b"one\ntwo\n"


@pytest.mark.parametrize("size", range(0, len(RECORD), 7))
@pytest.mark.parametrize("whole", [0, 2, 500])
def test_half_a_record_is_cut_off(rig: Rig, whole: int, size: int) -> None:
    """What a killed shim left of a record isn't glued to the next one."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * whole + RECORD[:size])
    rig.launch(runtime(*shell("echo after")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert log.text() == b"before\n" * whole + b"after\n"


def test_a_log_that_is_too_large_already(rig: Rig) -> None:
    """A file beyond the bound, from a time with another one, is rotated at the first record."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=2)
    log.path.write_bytes(RECORD * 1000)
    rig.launch(runtime(*shell("echo after")), *log.options())
    rig.made()
    assert rig.end() == (0, 0)
    assert [len(parse(path.read_bytes())) for path in log.files] == [1000, 1]


def test_a_name_that_is_taken(rig: Rig) -> None:
    """Where it can't be rotated, the file stays within its bound, and the writer goes on."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=2)
    obstacle = Path(f"{log.path}.1")
    obstacle.mkdir()
    sleeping(rig, log)
    fd = log.writer()
    line = b"x" * 99 + b"\n"
    write_all(fd, line * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert 0 < log.path.stat().st_size <= LEAST_BYTES
    obstacle.rmdir()
    write_all(fd, b"after " * 50 + b"\n")
    wait_for(lambda: log.text().endswith(b"after \n"), "a log that goes on")
    assert [path.name for path in log.files] == ["output.log.1", "output.log"]
    finish_writers(rig, fd)
    assert [entry["msg"].split(":")[0] for entry in rig.log()] == [
        f"cannot rotate the log {log.path}"
    ]


# ---- a full disk ---------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system: 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=20,mode=755", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk; return the file that does."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


@root_only
def test_a_full_disk(rig: Rig, disk: Path) -> None:
    """It blocks nobody, leaves no half record, rotates nothing away, and is got over."""
    log = Log(rig, disk / "log", max_bytes=70_000, files=3)
    Path(f"{log.path}.1").write_bytes(RECORD * 1000)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"first\n")
    wait_for(lambda: log.text().endswith(b"first\n"), "a line")
    filler = fill(disk)
    for line in itertools.islice(lines_of(random.Random(SEED), 500), 8000):
        write_all(fd, line)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert log.text().startswith(b"before\n" * 1000 + b"first\n")
    assert [path.name for path in log.files] == ["log.1", "log"]
    parse(log.path.read_bytes())
    filler.unlink()
    write_all(fd, b"\nafter\n")
    wait_for(lambda: log.text().endswith(b"after\n"), "a log that goes on")
    finish_writers(rig, fd)
    assert log.records()
    said = {entry["msg"] for entry in rig.log()}
    assert said == {f"cannot write the log {log.path}: No space left on device"}


@root_only
def test_no_inode_is_left(rig: Rig, disk: Path) -> None:
    """A rotation that can't make the new file doesn't push the old ones out at each record."""
    log = Log(rig, disk / "log", max_bytes=LEAST_BYTES, files=3)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"x" * 10_000 + b"\n")
    wait_for(lambda: len(log.text()) == 10_001, "a line")
    fillers = []
    with contextlib.suppress(OSError):
        for number in itertools.count():
            fillers.append(disk / str(number))
            fillers[-1].touch()
    write_all(fd, (b"y" * 9_999 + b"\n") * 10)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert log.text() == b"x" * 10_000 + b"\n"
    fillers[0].unlink()
    write_all(fd, b"after\n")
    wait_for(lambda: log.text().endswith(b"after\n"), "a log that goes on")
    assert log.text() == b"x" * 10_000 + b"\nafter\n"
    finish_writers(rig, fd)
    [entry] = rig.log()
    assert entry["msg"] == f"cannot open the log {log.path}: No space left on device"


# ---- the end -------------------------------------------------------------------------------


@contextlib.contextmanager
def grandchild(rig: Rig) -> Iterator[int]:
    """Give the pid that the process has written to ``orphan``; kill it in the end."""
    rig.wait_end()
    pid = int((rig / "orphan").read_text())
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


HELD = "sleep 1000 & echo $! >orphan; echo words; printf more; exit 3"


def test_held_by_a_grandchild(rig: Rig) -> None:
    """The shim stays while somebody may still write, and goes when nobody can."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*shell(HELD)), *log.options())
    rig.made()
    with grandchild(rig) as pid:
        wait_for(lambda: log.text() == b"words\nmore", "all output")
        wait_for(rig.idle, "an idle shim")
        fd = log.writer()
        write_all(fd, b"late\n")
        rig.drop(fd)
        wait_for(lambda: log.text() == b"words\nmorelate\n", "late output")
        os.kill(pid, signal.SIGKILL)
        assert rig.wait_gone() == 0


@pytest.mark.parametrize("how", ["line", "signal"])
def test_released(rig: Rig, how: str) -> None:
    """A shim that is released writes down what there is, and leaves whoever holds the log."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*shell(HELD)), *log.options())
    rig.made()
    with grandchild(rig) as pid:
        wait_for(rig.waiting, "a shim that stays")
        rig.stop()
        fd = log.writer()
        write_all(fd, b"x" * 300_000)  # more than it reads at once
        if how == "line":
            control = rig.open("control", os.O_WRONLY | os.O_NONBLOCK)
            os.write(control, b"3 0 0\n")
        else:
            os.kill(rig.pid, signal.SIGTERM)
        os.kill(rig.pid, signal.SIGCONT)
        assert rig.wait_gone() == 0
        assert not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    assert log.text() == b"words\nmore" + b"x" * 300_000


def test_a_fifo_beside_a_held_log(rig: Rig) -> None:
    """A shim that stays for its log alone sleeps, though it has a fifo too.

    It once looked every second: with nothing in the fifo it had no inotify for it.
    """
    log = Log(rig, max_bytes=MUCH, files=1)
    script = "sleep 1000 & echo $! >orphan; echo error >&2; exit 3"
    rig.launch(runtime(*shell(script)), *log.options("stderr"), "--stdout", rig.fifo("out"))
    rig.made()
    with grandchild(rig) as pid:
        wait_for(lambda: log.text("stderr") == b"error\n", "all output")
        wait_for(rig.idle, "an idle shim")
        out = rig.open("out", os.O_RDWR | os.O_NONBLOCK)
        os.write(out, b"late")
        rig.drop(out)
        os.kill(pid, signal.SIGKILL)
        reader = rig.open("out", os.O_RDONLY | os.O_NONBLOCK)
        wait_for(rig.idle, "a shim that holds the fifo's bytes")
        assert os.read(reader, 100) == b"late"
        assert rig.wait_gone() == 0


def test_a_forwarded_stop(rig: Rig) -> None:
    """What the process says when a signal stops it through its shim is logged."""
    log = Log(rig, max_bytes=MUCH, files=1)
    script = 'trap "echo stopped; exit 7" TERM; echo ready; while :; do sleep 0.01; done'
    rig.launch(runtime(*shell(script)), *log.options())
    rig.made()
    wait_for(lambda: log.text() == b"ready\n", "a process that is ready")
    os.kill(rig.pid, signal.SIGTERM)
    assert rig.end() == (7, 0)
    assert log.text() == b"ready\nstopped\n"


def test_a_create_that_fails(rig: Rig) -> None:
    """What the runtime said on the process's streams is in the log of a create that failed."""
    log = Log(rig, max_bytes=MUCH, files=1)
    script = "echo doing; printf 'what is wrong' >&2; exit 4"
    rig.launch(shell(script), *log.options("stdout", "stderr"))
    assert rig.refused("runtime")["code"] == 4
    assert log.text("stdout") == b"doing\n"
    assert log.text("stderr") == b"what is wrong"


def test_a_create_that_fails_and_says_much(rig: Rig) -> None:
    """All of it is logged, however much the fifo holds when the runtime has ended."""
    log = Log(rig, max_bytes=MUCH, files=1)
    gate = Gate(rig)
    script = f"{gate.wait} head -c 300000 /dev/zero; exit 4"
    rig.launch(shell(script), *log.options())
    gate.wait_reached()
    [pid] = children(rig.pid)
    rig.stop()
    gate.open()
    wait_for(lambda: ended(pid), "the runtime's end")
    os.kill(rig.pid, signal.SIGCONT)
    assert rig.refused("runtime")["code"] == 4
    assert log.text() == bytes(300_000)


def test_an_idle_shim_with_a_log_never_wakes(rig: Rig) -> None:
    """A shim whose process writes nothing, or has written half a line, sleeps on."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*shell("printf words; exec sleep 1000")), *log.options("stdout", "stderr"))
    become(rig.made(), "sleep")
    wait_for(lambda: log.text() == b"words", "half a line")
    wait_for(rig.idle, "an idle shim")
    before = switches(rig.pid)
    for _ in range(30):
        subprocess.run(["/bin/true"], check=True)
    assert rig.idle()
    assert switches(rig.pid) == before


# ---- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "log",
        "100000",
        "100000:2",
        "100000:2:",
        "100000::log",
        ":2:log",
        "100000:2log",
        "100000 2 log",
        "100000:0:log",
        "100000:-1:log",
        "100000:1001:log",
        "100000:99999999999:log",
        "-100000:2:log",
        f"{LEAST_BYTES - 1}:2:log",
        "1e6:2:log",
        "9999999999999999999999:2:log",
    ],
)
def test_bad_bounds(rig: Rig, spec: str) -> None:
    """A --log that can't be obeyed is refused, and nothing is run."""
    rig.launch(runtime(*SLEEP), "--log", spec)
    assert rig.refused("options")["error"].startswith("--log takes MAX_BYTES:FILES:PATH")
    assert not (rig / "pid").exists()


def test_a_log_without_bounds(rig: Rig) -> None:
    """A stream can't be logged without --log."""
    rig.fifo("out")
    rig.launch(runtime(*SLEEP), "--stdout", f"log:{rig / 'out'}")
    assert rig.refused("options")["error"] == "a log needs --log"


def test_input_is_no_log(rig: Rig) -> None:
    """Standard input can't be logged."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options("stdin"))
    assert rig.refused("options")["error"].startswith("bad stdio log:")


def test_a_log_that_cannot_be_opened(rig: Rig) -> None:
    """Where there can be no log there is no process."""
    log = Log(rig, rig / "none/log", max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options())
    assert rig.refused("files")["errno"] == errno.ENOENT


def test_a_log_that_is_no_fifo(rig: Rig) -> None:
    """A stream is logged through a fifo, and through nothing else."""
    log = Log(rig, max_bytes=MUCH, files=1)
    options = log.options()
    (rig / "stdout").unlink()
    (rig / "stdout").touch()
    rig.launch(runtime(*SLEEP), *options)
    assert rig.refused("stdio")["error"].endswith("is not a fifo")


# ---- what isn't ours -----------------------------------------------------------------------


def precious(rig: Rig) -> Path:
    """Return a file that isn't a log, and of which nothing may change."""
    path = rig / "precious"
    path.write_bytes(b"precious\n")
    return path


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _fifo(path: Path, target: Path) -> None:
    os.mkfifo(path, 0o600)


def _others_may_write(path: Path, target: Path) -> None:
    path.write_bytes(b"mine\n")
    path.chmod(0o666)


def _foreign(path: Path, target: Path) -> None:
    path.write_bytes(b"mine\n")
    os.chown(path, 65534, 65534)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
strange = pytest.mark.parametrize(
    "spoil", [_link, _fifo, _others_may_write, pytest.param(_foreign, marks=as_root)]
)


@strange
def test_a_log_that_is_not_ours(rig: Rig, spoil: Callable[[Path, Path], None]) -> None:
    """A link there had root append to any file of the host what a container printed."""
    target = precious(rig)
    log = Log(rig, max_bytes=MUCH, files=2)
    spoil(log.path, target)
    before = log.path.lstat()
    rig.launch(runtime(*SLEEP), *log.options())
    assert "not a file of ours alone" in rig.refused("files")["error"]
    assert target.read_bytes() == b"precious\n"
    assert log.path.lstat() == before


@pytest.mark.parametrize(
    "kind", ["link", "writable", pytest.param("foreign", marks=as_root), "file", "none"]
)
def test_a_directory_that_is_not_ours(rig: Rig, kind: str) -> None:
    """Whoever may write there can put a link in place of any file that the shim makes."""
    directory, elsewhere = rig / "logs", rig / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        directory.symlink_to(elsewhere)
    elif kind == "file":
        directory.write_bytes(b"")
    elif kind != "none":
        directory.mkdir()
    if kind == "writable":
        directory.chmod(0o777)
    if kind == "foreign":
        os.chown(directory, 65534, 65534)
    log = Log(rig, directory / "e.log", max_bytes=MUCH, files=2)
    rig.launch(runtime(*SLEEP), *log.options())
    said = "cannot look at" if kind == "none" else "isn't a directory of ours alone"
    assert said in rig.refused("files")["error"]
    assert list(elsewhere.iterdir()) == []


@strange
def test_a_rotation_stops_at_what_is_not_ours(
    rig: Rig, spoil: Callable[[Path, Path], None]
) -> None:
    """It isn't replaced nor renamed; the log keeps to its bound, and the writer goes on."""
    target = precious(rig)
    log = Log(rig, max_bytes=LEAST_BYTES, files=3)
    obstacle = Path(f"{log.path}.1")
    spoil(obstacle, target)
    before = obstacle.lstat()
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, (b"x" * 99 + b"\n") * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert 0 < log.path.stat().st_size <= LEAST_BYTES
    assert obstacle.lstat() == before
    assert not Path(f"{log.path}.2").exists()
    assert target.read_bytes() == b"precious\n"
    finish_writers(rig, fd)
    [entry] = rig.log()
    assert entry["msg"] == f"cannot rotate the log {log.path}: not a file of ours alone"


def test_a_link_that_comes_in_its_place(rig: Rig) -> None:
    """After a rotation the next file is made, and what stands there instead isn't written to."""
    target = precious(rig)
    log = Log(rig, max_bytes=LEAST_BYTES, files=1)
    sleeping(rig, log)
    fd = log.writer()
    write_all(fd, b"line\n")
    wait_for(lambda: log.text() == b"line\n", "a record")
    log.path.unlink()
    log.path.symlink_to(target)
    write_all(fd, (b"x" * 99 + b"\n") * 3000)
    wait_for(drained(rig, fd), "a shim that has read it")
    assert target.read_bytes() == b"precious\n"
    finish_writers(rig, fd)
