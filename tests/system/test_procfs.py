"""The facts about a process in /proc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.system import _procfs as procfs
from supervisor.system import boot_id, is_argument, look_at, start_time
from supervisor.values import TooManyFiles
from tests.support.processes import line, python
from tests.support.runtimes import needs_root
from tests.support.settings import THOROUGH

RENAME = """
import sys
with open("/proc/self/comm", "wb") as file:
    file.write(bytes.fromhex(sys.argv[1]))
print("up", flush=True)
sys.stdin.read()
"""

COMMS = [
    b"plain", b"two words", b") S 1 2 3 4", b"((()", b")", b") R 7 7", b"a\nb", b"\xff\xfe",
    b"a)b(c d)e",
]  # fmt: skip


@pytest.mark.parametrize("comm", COMMS, ids=repr)
def test_a_command_with_a_weird_name(comm: bytes) -> None:
    """A process with the name ``) S 1 2 3`` doesn't change how the fields are read."""
    with python(RENAME, comm.hex()) as process:
        assert line(process.stdout) == "up"
        assert Path(f"/proc/{process.pid}/comm").read_bytes() == comm + b"\n"
        now = look_at(process.pid)
        assert now is not None
        assert (now.zombie, now.parent_pid) == (False, os.getpid())
        started = now.start_time
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        ticks = uptime * os.sysconf("SC_CLK_TCK")
        assert ticks - 60 * os.sysconf("SC_CLK_TCK") <= started <= ticks + 1


@THOROUGH
@given(comm=st.binary(max_size=15))
def test_any_name_is_skipped(comm: bytes) -> None:
    """The fields are found behind any name."""
    numbers = [str(n).encode() for n in range(4, 53)]
    data = b"42 (" + comm + b") S " + b" ".join(numbers) + b"\n"
    assert procfs.stat_fields(data) == [b"S", *numbers]


def test_a_start_time_stays_and_differs() -> None:
    """A start time doesn't change while the process lives, and differs from the parent's."""
    with python("import sys; sys.stdin.read()") as process:
        started = start_time(process.pid)
        assert started == start_time(process.pid)
        mine = start_time(os.getpid())
        assert mine is not None
        assert started is not None
        assert mine < started


def test_a_zombie_still_has_a_start_time() -> None:
    """Until a zombie is reaped, the pid belongs to no other process."""
    with python("") as process:
        assert line(process.stdout) == ""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        now = look_at(process.pid)
        assert now is not None
        assert (now.zombie, now.parent_pid) == (True, os.getpid())
        assert now.start_time == start_time(process.pid)
        process.wait()
        assert start_time(process.pid) is None
        assert look_at(process.pid) is None


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**31, 2**64])
def test_what_is_no_pid_has_no_start_time(pid: int) -> None:
    """A number that is no process's pid is no error."""
    assert start_time(pid) is None
    assert look_at(pid) is None


def test_a_process_that_goes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says ESRCH when the process is reaped between open and read."""

    def gone(path: str) -> bytes:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(procfs, "_read", gone)
    assert start_time(os.getpid()) is None


def test_no_descriptor_left_is_not_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of descriptors must not look like the process's death."""

    def full(*args: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(TooManyFiles):
        start_time(os.getpid())


def test_the_boot_id_is_one() -> None:
    """The boot id is the same each time, a UUID, without a line end."""
    assert boot_id() == boot_id()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot_id())


WORD = f"a-word-that-nobody-else-says-{os.getpid()}"  # nor do tests beside this one


@needs_root
@pytest.mark.parametrize(
    ("prefix", "seen"),
    [
        pytest.param([], True, id="ours"),
        pytest.param(["setpriv", "--no-new-privs"], True, id="ours, without new privileges"),
        pytest.param(["unshare", "--user"], True, id="in a user namespace"),
        pytest.param(["unshare", "--pid", "--fork"], False, id="in a container"),
        pytest.param(["setpriv", "--reuid=12345", "--clear-groups"], False, id="another user's"),
    ],
)
def test_whose_arguments_count(prefix: list[str], seen: bool) -> None:
    """Ours do, wherever the word stands; to read a container's may wait for that."""
    script = """read -r word; exec sh -c 'echo up; read -r _' "$word" last"""
    with subprocess.Popen(
        [*prefix, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        print(WORD, file=process.stdin, flush=True)  # the wrapper's arguments lack the word
        assert line(process.stdout) == "up"
        assert is_argument(WORD) == seen
        process.communicate("\n")
    assert not is_argument(WORD)


def test_its_own_arguments_do_not_count() -> None:
    """`myctl run web` must be able to clean up after the web that was killed; nor do names."""
    script = (
        "import sys; from supervisor.system import is_argument; print(is_argument(sys.argv[1]))"
    )
    with python(script, WORD) as process:
        assert line(process.stdout) == "False"
    with subprocess.Popen([WORD], executable="/bin/cat", stdin=subprocess.PIPE) as process:
        assert not is_argument(WORD)
        process.communicate()


@needs_root
def test_a_process_that_may_not_be_traced_counts() -> None:
    """A process whose namespace can't be seen (no CAP_SYS_PTRACE) counts, by its arguments."""
    script = "from supervisor.system import is_argument; print(is_argument(input()))"
    without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all"]
    command = [*without, sys.executable, "-c", script]
    with python("input()", WORD) as other:
        done = subprocess.run(command, input=WORD, text=True, stdout=subprocess.PIPE, check=True)
        assert done.stdout == "True\n"
        other.communicate("\n")
