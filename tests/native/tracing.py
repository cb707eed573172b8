"""Shims under strace."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence

import pytest

from tests.native.rig import SLEEP, Rig, Word, runtime

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
release = pytest.mark.parametrize("programs", ["release"], indirect=True)


def traced(rig: Rig, *options: str, process: Sequence[Word] = SLEEP, calls: str = "kill") -> int:
    """Launch a shim, tracing the system calls; return the shim's pid."""
    words = [rig.programs.shim, "--directory", str(rig.path), *options, "--"]
    fds = [int(fd) for fd in options[-1].split(":")] if "--leash" in options else []
    command = ["strace", "-o", str(rig / "trace"), "-e", f"trace={calls}", *words]
    rig.launch_words([*command, *runtime(*process)], pass_fds=fds)
    rig.running(os.path.basename(process[0]))
    return int((rig / "shim").read_text().split()[0])


def killed(rig: Rig) -> list[int]:
    """Return the pids that the traced shim has sent signals to."""
    return [int(pid) for pid in re.findall(r"^kill\((-?\d+),", (rig / "trace").read_text(), re.M)]
