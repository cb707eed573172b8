"""What an idle shim costs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.programs import Programs
from tests.native.rig import SLEEP, Rig, runtime
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
