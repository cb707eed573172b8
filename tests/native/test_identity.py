"""What the shim records about the shim and the process, on disk and in the report."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.state import read_pid, read_shim, read_starttime
from supervisor.system import held, look_at, start_time
from tests.native.rig import SLEEP, Gate, Rig, ended, exiting, root_only, runtime, shell
from tests.native.tracing import needs_strace, release, traced


def test_a_successful_create(rig: Rig) -> None:
    """The report, the files and the kernel agree on the process: a child of the shim."""
    rig.launch(runtime(*SLEEP))
    told = rig.say()
    pid = told["pid"]
    assert pid == read_pid(str(rig / "pid"))
    now = look_at(pid)
    assert now is not None
    assert now.parent_pid == rig.pid
    assert told["starttime"] == start_time(pid) == read_starttime(str(rig / "starttime"))
    os.kill(pid, signal.SIGTERM)
    assert rig.end() == (143, 15)
    assert rig.log() == []


def test_the_shim_file_names_it_and_is_locked_for_its_life(rig: Rig) -> None:
    """`shim` holds the shim's pid and start time, and a lock that ends with the shim, even by
    SIGKILL."""
    gate = Gate(rig)
    pid = rig.launch(runtime(*SLEEP, before=gate.wait))
    path = str(rig / "shim")
    gate.wait_reached()
    assert held(path)
    gate.open()
    process = rig.made()
    assert read_shim(path) == (pid, start_time(pid))
    assert held(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    os.kill(process, signal.SIGKILL)
    rig.end()
    assert not held(path)


def test_a_killed_shim_does_not_leave_its_lock_to_anybody(rig: Rig) -> None:
    """The process doesn't inherit the lock: when the shim is killed the lock is free at once."""
    rig.launch(runtime(*SLEEP))
    process = rig.made()
    os.kill(rig.pid, signal.SIGKILL)
    assert rig.wait_gone() == -signal.SIGKILL
    assert not held(str(rig / "shim"))
    assert not ended(process)
    os.kill(process, signal.SIGKILL)


def test_nothing_but_its_files_is_left(rig: Rig) -> None:
    """No temporary file stays behind."""
    rig.launch(exiting(0))
    rig.made()
    assert rig.end() == (0, 0)
    expected = {"shim", "pid", "starttime", "exitStatus", "exit", "control"}
    assert set(os.listdir(rig.path)) == expected


def test_it_lives_in_its_directory(rig: Rig) -> None:
    """Relative names in the options belong to the shim's directory, wherever the launch was."""
    rig.fifo("out")
    rig.launch(runtime(*SLEEP), "--stdout", "fifo:out", cwd="/")
    pid = rig.running()
    assert os.readlink(f"/proc/{rig.pid}/cwd") == str(rig.path)
    assert os.readlink(f"/proc/{pid}/fd/1") == str(rig / "out")


def test_without_the_option_it_works_where_it_is(rig: Rig) -> None:
    """`--directory` may be left out: then the working directory is the process directory."""
    rig.launch_words([rig.programs.shim, "--", *exiting(9)], cwd=rig.path)
    rig.made()
    assert rig.end() == (9, 0)


@pytest.mark.parametrize("name", ["shim", "exitStatus", "starttime"])
def test_its_files_are_its_own(rig: Rig, name: str) -> None:
    """The shim's files are private, whatever the launcher's umask."""
    rig.launch(runtime(*SLEEP), umask=0)
    rig.made()
    assert (rig / name).stat().st_mode & 0o777 == 0o600


def test_the_runtime_has_a_score_and_a_keyring_of_its_own(rig: Rig) -> None:
    """A child of vfork shares the shim's memory; the child's score must not become the shim's
    score."""
    number = 250 if platform.machine() == "x86_64" else 219
    keyring = f"import ctypes; print(ctypes.CDLL(None).syscall({number}, 0, -3, 0))"
    script = f"exec >told; cat /proc/self/oom_score_adj; {sys.executable} -ISc '{keyring}'"
    own = int(Path("/proc/self/oom_score_adj").read_text())
    rig.launch(runtime(*shell(f"{script}; exec sleep 1000")), "--oom-score-adj", str(own + 1))
    rig.running()
    score, ring = map(int, (rig / "told").read_text().split())
    ours: int = ctypes.CDLL(None).syscall(number, 0, -3, 0)
    assert score == own + 1
    assert ring > 0
    assert ring != ours
    assert int(Path(f"/proc/{rig.pid}/oom_score_adj").read_text()) == own


@pytest.mark.parametrize("score", ["", "x", "1001", "-1001", "0 1"])
def test_what_is_no_score(rig: Rig, score: str) -> None:
    """A bad score is refused before anything is made."""
    rig.launch(runtime(*SLEEP), "--oom-score-adj", score)
    assert "--oom-score-adj takes -1000 to 1000" in rig.refused("options")["error"]


STRANGER = 11
"""The first two figures of the pid that doesn't fit into what the shim reads at once."""


@release
@needs_strace
@root_only
def test_a_pid_that_was_cut_is_a_strangers(rig: Rig, tmp_path: Path) -> None:
    """After a failed create the shim kills its children, and ignores a pid that was cut."""
    last = "/proc/sys/kernel/ns_last_pid"  # a pid namespace lets the test choose the pids
    words = " ".join([rig.programs.shim, "--directory", str(rig.path), "--"])
    # 511 bytes: "500 ", then "1001 " to "1101 ", then "11" of "1102 ".
    many = f"echo 499 >{last}; sleep 1000 & echo 1000 >{last}; "
    many += "for i in {1..110}; do sleep 1000 & done; exit 1"
    script = f"""
        echo {STRANGER - 1} >{last}; sleep 1000 & echo $! >{tmp_path}/stranger
        echo 200 >{last}; {words} /bin/bash -c '{many}' >{tmp_path}/report
        grep -xl sleep /proc/[0-9]*/comm >{tmp_path}/left
        grep State /proc/{STRANGER}/status >{tmp_path}/state
    """
    space = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    subprocess.run([*space, "/bin/bash", "-c", script], check=True, stdin=subprocess.DEVNULL)
    assert (tmp_path / "stranger").read_text() == f"{STRANGER}\n"
    assert '"phase": "runtime"' in (tmp_path / "report").read_text()
    assert (tmp_path / "left").read_text() == f"/proc/{STRANGER}/comm\n"
    assert "sleeping" in (tmp_path / "state").read_text()


@release
@needs_strace
def test_its_file_is_locked_before_it_has_its_name(rig: Rig) -> None:
    """A shim's file that is unlocked proves that the shim is dead."""
    traced(rig, calls="flock,rename,renameat,renameat2")
    os.kill(int((rig / "pid").read_text()), signal.SIGKILL)
    assert rig.wait_gone() == 0
    lines = (rig / "trace").read_text().splitlines()
    assert lines[0].startswith("flock(") and '"shim")' in lines[1]


@release
@needs_strace
@root_only
def test_without_proc(rig: Rig) -> None:
    """A shim that can't see its children, and will not in a while either, still reports."""
    words = " ".join([rig.programs.shim, "--directory", str(rig.path), "--", "/bin/true"])
    script = f"mount -t tmpfs none /proc && exec {words}"
    rig.launch_words(["unshare", "--mount", "/bin/sh", "-c", script])
    assert "stat" in rig.refused("start")["error"]
