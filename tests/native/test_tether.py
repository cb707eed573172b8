"""The tether: a runtime's call that ends with the caller."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.programs import Programs
from tests.native.rig import ended
from tests.support.leaks import wait_for

SAY_MORE = "echo out; echo err >&2; exit 44"

PARENT = """
import os, sys
tether, *command = sys.argv[1:]
print(os.posix_spawn(tether, [tether, str(os.getpid()), "-1", *command], os.environ), flush=True)
sys.stdin.read()
"""


def run(programs: Programs, *words: str, fds: tuple[int, ...] = ()) -> tuple[int, str, str]:
    """Run the tether; return the exit status, and what the tether printed."""
    ended = subprocess.run(
        [programs.tether, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=programs.environment,
        pass_fds=fds,
    )
    return ended.returncode, ended.stdout, ended.stderr


def me() -> str:
    """Return our pid."""
    return str(os.getpid())


def test_it_becomes_the_command(programs: Programs) -> None:
    """Streams and status are the command's own."""
    told = run(programs, me(), "-1", "/bin/sh", "-c", SAY_MORE)
    assert told == (44, "out\n", "err\n")


def test_a_program_by_its_descriptor(programs: Programs) -> None:
    """The tether runs the descriptor in place of the named file, and closes the descriptor."""
    with open("/bin/ls", "rb") as file:
        fd = file.fileno()
        status, listed, _ = run(programs, me(), str(fd), "/no/such", "/proc/self/fd", fds=(fd,))
    assert (status, str(fd) in listed.split()) == (0, False)


def test_a_descriptor_that_cannot_be_run(programs: Programs) -> None:
    """The named file is run then: programs in memory may be forbidden."""
    with open("/dev/null", "rb") as file:
        fd = file.fileno()
        told = run(programs, me(), str(fd), "/bin/sh", "-c", SAY_MORE, fds=(fd,))
    assert told == (44, "out\n", "err\n")


def test_a_command_that_cannot_be_run(programs: Programs, tmp_path: Path) -> None:
    """The tether reports the reason by errno."""
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    for path, number in (
        (tmp_path / "missing", errno.ENOENT),
        (tmp_path, errno.EACCES),
        (tmp_path / "text", errno.ENOEXEC),
    ):
        told = run(programs, me(), "-1", str(path))
        assert told == (127, "", f"supervisor-tether: {number}\n")


def test_it_dies_with_its_parent(programs: Programs) -> None:
    """SIGKILL of the launcher kills the command too, at once."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, programs.tether, "/bin/sleep", "600"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=programs.environment,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the command runs")
        parent.kill()
    wait_for(lambda: ended(pid), "it has died too")


def test_a_parent_that_has_died_before(programs: Programs, tmp_path: Path) -> None:
    """If the parent died before the tether started, nothing is run."""
    told = run(programs, "1", "-1", "/bin/touch", str(tmp_path / "ran"))
    assert told == (-signal.SIGKILL, "", "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [[], ["1"], ["1", "-1"], ["x", "-1", "true"], ["1", "x", "true"]])
def test_usage(programs: Programs, words: list[str]) -> None:
    """Nothing is run that can't be understood."""
    status, _, said = run(programs, *words)
    assert status == 2 and said.startswith("usage: supervisor-tether")
