"""A log when the process has ended, was never made, or is idle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.logs import CONTENT_MAX, LEAST_BYTES, MUCH, Log, launch_traced, write_all
from tests.native.rig import Gate, Rig, become, children, ended, runtime, shell, switches
from tests.native.tracing import needs_strace, release
from tests.support.leaks import wait_for

pytestmark = pytest.mark.usefixtures("directory")


@contextlib.contextmanager
def grandchild(rig: Rig) -> Iterator[int]:
    """Give the pid that the process has written to ``orphan``; kill that process in the end."""
    rig.wait_end()
    pid = int((rig / "orphan").read_text())
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


HELD = "sleep 1000 & echo $! >orphan; echo words; printf more; exit 3"


def test_held_by_a_grandchild(rig: Rig) -> None:
    """The shim stays while any process may still write, and goes when no process can."""
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
    """A released shim writes down what there is, and goes, even if a grandchild holds the log."""
    log = Log(rig, max_bytes=MUCH, files=1)
    rig.launch(runtime(*shell(HELD)), *log.options())
    rig.made()
    with grandchild(rig) as pid:
        wait_for(rig.waiting, "a shim that stays")
        rig.stop()
        fd = log.writer()
        write_all(fd, b"x" * 300_000)  # more than the shim reads at once
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
    """A shim that stays only for the log sleeps, even with a fifo beside it.

    The shim once looked every second: an empty fifo has no inotify.
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
    """The last output of a process that a signal to the shim stopped is logged."""
    log = Log(rig, max_bytes=MUCH, files=1)
    script = 'trap "echo stopped; exit 7" TERM; echo ready; while :; do sleep 0.01; done'
    rig.launch(runtime(*shell(script)), *log.options())
    rig.made()
    wait_for(lambda: log.text() == b"ready\n", "a process that is ready")
    os.kill(rig.pid, signal.SIGTERM)
    assert rig.end() == (7, 0)
    assert log.text() == b"ready\nstopped\n"


def test_a_create_that_fails(rig: Rig) -> None:
    """The runtime's output on the process's streams is in the log of a create that failed."""
    log = Log(rig, max_bytes=MUCH, files=1)
    script = "echo doing; printf 'what is wrong' >&2; exit 4"
    rig.launch(shell(script), *log.options("stdout", "stderr"))
    assert rig.refused("runtime")["code"] == 4
    assert log.text("stdout") == b"doing\n"
    assert log.text("stderr") == b"what is wrong"


def test_a_create_that_fails_and_says_much(rig: Rig) -> None:
    """All output of a failed create is logged, however full the fifo is when the runtime ends."""
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


@release
@needs_strace
def test_who_writes_on_and_on(rig: Rig) -> None:
    """A released shim takes at most a full pipe from a process that never stops writing."""
    log = Log(rig, max_bytes=LEAST_BYTES, files=1)
    script = "sleep 1000 & echo $! >orphan; exit 3"
    # From the first read on, there is always something: zeros that strace makes up.
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
