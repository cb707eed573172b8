"""The memory and time that an idle shim costs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.programs import Programs
from tests.native.rig import SLEEP, Rig, runtime, shell
from tests.native.tracing import needs_strace, release
from tests.support.leaks import wait_for

COUNT = 30
MOST_KB = 150


@pytest.mark.parametrize("programs", ["release"], indirect=True)
def test_memory(
    programs: Programs, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Thirty idle shims take less than 150 kB each (PSS): no more than a static glibc one."""
    with contextlib.ExitStack() as stack:
        rigs = [
            stack.enter_context(contextlib.closing(Rig(programs, tmp_path / str(i))))
            for i in range(COUNT)
        ]
        for rig in rigs:
            rig.launch(runtime(*SLEEP), "--stdin", rig.fifo("in"), "--stdout", rig.fifo("out"))
        pids = [rig.made() for rig in rigs]
        for rig in rigs:
            wait_for(rig.idle, "an idle shim")
        each_kb = sum(pss_kb(rig.pid) for rig in rigs) / COUNT
        print(f"\nPSS of {COUNT} idle shims: {each_kb:.1f} kB each")
        record_property("pss_kb", each_kb)
        for rig, pid in zip(rigs, pids, strict=True):
            os.kill(pid, signal.SIGKILL)
            assert rig.end() == (137, 9)
    assert each_kb < MOST_KB


def pss_kb(pid: int) -> int:
    """Return the proportional set size of a process (man 5 proc_pid_smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return int(dict(line.split(":", 1) for line in lines)["Pss"].split()[0])


@release
@needs_strace
@pytest.mark.parametrize("what", ["a line", "a read"])
def test_it_waits_again(rig: Rig, what: str) -> None:
    """The shim sleeps again after a control line, and after a client has read a part of the
    output."""
    rig.launch(runtime(*shell("echo words")), "--stdout", rig.fifo("stdout"))
    rig.made()
    rig.wait_end()
    wait_for(rig.idle, "a shim that holds the output")
    reader = rig.open("stdout", os.O_RDONLY | os.O_NONBLOCK)
    if what == "a line":
        rig.control("0 0 0\n")
    else:
        assert os.read(reader, 1) == b"w"
    before = used(rig.pid)
    time.sleep(0.4)
    assert used(rig.pid) - before < 0.1


def used(pid: int) -> float:
    """Return how many seconds of the processor's time a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
