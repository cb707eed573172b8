"""Guards of the log that only a rare moment needs: brought about here, one by one."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from tests.native.logs import CONTENT_MAX, LEAST_BYTES, MUCH, RECORD, Log, write_all
from tests.native.rig import SLEEP, Rig, runtime, shell, unread
from tests.support.leaks import wait_for
from tests.support.processes import status_of

pytestmark = pytest.mark.parametrize("programs", ["release"], indirect=True)

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def launch_traced(rig: Rig, script: str, log: Log, *inject: str) -> None:
    """Launch a shim with a log, some of whose system calls say something else."""
    words = ["strace", "-D", "-o", "/dev/null", *inject, rig.programs.shim]
    words += ["--directory", str(rig.path), *log.options(), "--"]
    rig.launch_words([*words, *runtime(*shell(script))])


def test_what_is_no_log_of_ours_stays(rig: Rig) -> None:
    """A file that ends with more than any record could hold isn't cut."""
    old = b"x" * (LEAST_BYTES + 1)
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(old)
    rig.launch(runtime(*shell("exit 3")), *log.options())
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.read_bytes() == old


def test_a_whole_log_is_not_touched(rig: Rig) -> None:
    """A log without half a record stays as it was until there is something to add to it."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * 3)
    os.utime(log.path, ns=(1, 1))
    rig.launch(runtime(*shell("exit 3")), *log.options())
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.stat().st_mtime_ns == 1


@needs_strace
def test_a_log_that_shrinks_while_it_is_looked_at(rig: Rig) -> None:
    """Where less can be read than there was, nobody knows where a record ends: nothing is cut."""
    log = Log(rig, max_bytes=MUCH, files=1)
    log.path.write_bytes(RECORD * 3)
    launch_traced(rig, "exit 3", log, "-e", "inject=pread64:retval=1:when=1")
    rig.made()
    assert rig.end() == (3, 0)
    assert log.path.read_bytes() == RECORD * 3


def test_the_end_of_a_late_line(rig: Rig) -> None:
    """A shim that wakes up late takes what has come first: it may end the line that is due."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*SLEEP), *log.options())
    rig.running()
    fd = log.writer()
    while True:  # until it was stopped before the line was due, which it is after 100 ms
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


@needs_strace
def test_the_end_of_a_line_that_comes_after_the_look(rig: Rig) -> None:
    """A shim that is held up between its look and the end of its turn looks once more."""
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


@needs_strace
def test_who_writes_on_and_on(rig: Rig) -> None:
    """A shim that is released takes no more than a full pipe from whoever never stops writing."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=1)
    script = "sleep 1000 & echo $! >orphan; exit 3"
    # From the first read on, there is always something: zeros, which nobody has written.
    inject = ["-P", str(rig / "stdout"), "-e", f"inject=read:retval={CONTENT_MAX}"]
    launch_traced(rig, script, log, *inject)
    rig.made()
    rig.wait_end()
    orphan = int((rig / "orphan").read_text())
    try:
        wait_for(rig.idle, "a shim that stays")
        rig.control("3 0 0\n")
        assert rig.wait_gone() == 0
    finally:
        os.kill(orphan, signal.SIGKILL)
