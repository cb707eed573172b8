"""The gate as any process, outside of containers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import attrs

SECONDS = 30
SHOW = """
import json, os, sys
print(json.dumps({
    "args": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "stdin": sys.stdin.read(),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1], "umask": os.umask(0),
}))
"""
SHOWING = (sys.executable, "-ISc", SHOW)


@attrs.frozen
class Passed:
    """What a gate did.

    Attributes:
        report: the gate's report.
        code: the exit code of the gate, or of the gate's program.
        out: what the program printed.
        left: what the gate left unread in stdin.
    """

    report: bytes
    code: int
    out: bytes
    left: bytes


def pass_gate(
    gate: str, told: bytes, *, env: Mapping[str, str] | None = None, **options: Any
) -> Passed:
    """Run a gate with ``told`` as all of its stdin."""
    in_read, in_write = os.pipe()
    report_read, report_write = os.pipe()
    options = {"preexec_fn": lambda: os.dup2(report_write, 3), "pass_fds": [3], **options}
    process = subprocess.Popen(
        [gate],
        stdin=in_read,
        stdout=subprocess.PIPE,
        env={} if env is None else env,
        **options,
    )
    os.close(report_write)
    writing = os.fork()  # the fifo may be smaller than the frame
    if writing == 0:
        os.close(in_read)
        try:
            while told:
                told = told[os.write(in_write, told) :]
        except OSError:
            pass
        os._exit(0)
    os.close(in_write)
    out, _ = process.communicate(timeout=SECONDS)
    with open(in_read, "rb") as rest, open(report_read, "rb") as report:
        left, said = rest.read(), report.read()
    os.waitpid(writing, 0)
    return Passed(said, process.returncode, out, left)
