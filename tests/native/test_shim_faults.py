"""The shim under fire: system calls that fail, valgrind, and lines and bytes at random."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.fuzzing import fuzz
from tests.native.programs import PARTS, Programs
from tests.native.rig import Rig, exiting, read_to_end, runtime, shell
from tests.native.shim_faults import (
    CAN_FAIL,
    CANNOT_FAIL,
    ERRORS,
    KINDS,
    PAGE,
    common_name,
    count_calls,
    faults,
    play_all,
    rows,
)
from tests.native.shim_player import Fault, Missing, Player, Tools, compile_c, sources
from tests.support.leaks import wait_for

SEED = 20261124
LINES = 300_000
BYTES = 1_000_000

A_MATTER_OF_TIME = {
    *("close", "fcntl", "fstat", "ioctl", "open", "poll", "read", "sendto", "wait4", "waitid")
}
"""Calls that a shim makes more often the more often it wakes (musl: fcntl in each open)."""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """The tools that make system calls fail."""
    try:
        return Tools.make(tmp_path_factory.mktemp("tools"))
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("kind", KINDS)
def test_each_system_call_fails(
    tools: Tools, tmp_path: Path, kind: str, pytestconfig: pytest.Config
) -> None:
    """A call that fails is reported, or passed over; nothing hangs, is lost or left behind."""
    counts = count_calls(tools, tmp_path, [kind])
    each = bool(pytestconfig.getoption("--long"))
    cells = [(kind, fault) for fault in faults(counts[kind], each=each)]
    played = play_all(tools, tmp_path, cells)
    wrong = [f"{fault.injection}: {told.wrong}" for _, fault, told in played if told.wrong]
    assert not wrong, "\n".join(wrong)
    missed = {fault.call for _, fault, told in played if told.outcome == "no such call"}
    assert {common_name(call) for call in missed} <= A_MATTER_OF_TIME


def test_each_system_call_is_known(tools: Tools, tmp_path: Path) -> None:
    """The list of errors has each call that the shim makes."""
    for calls in count_calls(tools, tmp_path).values():
        assert {common_name(call) for call in calls} <= {*CAN_FAIL} | CANNOT_FAIL


def test_the_page_has_each_system_call(tools: Tools, tmp_path: Path) -> None:
    """The page has a row for each call, and an entry for each error that the call can return."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if "|" in line]
    assert lines[0][1:] == list(ERRORS)
    told = {words[0].strip("`"): words[1:] for words in lines[2:]}
    assert list(told) == rows(count_calls(tools, tmp_path))
    for call, cells in told.items():
        said = [error for error, cell in zip(ERRORS, cells, strict=True) if cell != "\u2013"]
        assert said == CAN_FAIL[call].split()


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_an_end_that_cannot_be_written(tools: Tools, tmp_path: Path, error: str) -> None:
    """If the exit status can't be written at all, the shim's log holds it."""
    calls = count_calls(tools, tmp_path, ["plain"])["plain"]
    [call] = [call for call in calls if common_name(call) == "pwrite64"]
    fault = Fault(call, error, 2, onwards=True)
    player = Player(tools, tmp_path / "process", "plain", fault)
    told = player.play()
    assert (told.outcome, told.wrong) == ("goes on", [])
    assert not (player / "exitStatus").read_bytes().strip()
    [entry] = player.log()
    assert entry["msg"].startswith("cannot record 7 0 ")


# ---- valgrind ------------------------------------------------------------------------------


ALWAYS = [".shim", "control", "exitStatus", "signalfd"]
"""What a shim has open to the last moment: lock, lines, the file for the exit status, signals."""


@pytest.fixture(scope="module")
def plain_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shim in which valgrind can name the places."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is needed (apt-get install gcc libc6-dev)")
    shim = tmp_path_factory.mktemp("plain") / "shim"
    compile_c(compiler, shim, *(sources() / f"{part}.c" for part in PARTS["shim"]), "-g", "-O1")
    return shim


@pytest.fixture
def valgrind(plain_shim: Path, tmp_path: Path) -> list[str]:
    """The beginning of a command line that runs a shim under valgrind."""
    program = shutil.which("valgrind")
    if program is None:
        pytest.skip("valgrind is needed (apt-get install valgrind)")
    options = ["--track-fds=yes", "--error-exitcode=99", f"--log-file={tmp_path}/said.%p"]
    return [program, *options, str(plain_shim)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A process directory and the shim that a test launches there."""
    rig = Rig(Programs("", "", "", ""), tmp_path / "process")
    try:
        yield rig
    finally:
        rig.close()


def launch(rig: Rig, words: list[str], command: list[str | bytes], *options: str) -> None:
    """Launch a shim by these words; return when the shim has reported a process."""
    rig.launch_words([*words, "--directory", str(rig.path), *options, "--", *command])
    rig.made()


def left_open(rig: Rig) -> list[str]:
    """Return what the shim had open at the end; valgrind must have found no error."""
    said = (rig.path.parent / f"said.{rig.pid}").read_text()
    assert "ERROR SUMMARY: 0 errors" in said
    assert "in use at exit: 0 bytes" in said
    found = re.findall(r"Open file descriptor (\d+):(.*)\n==\d+== +at \w+: (\w+)", said)
    names = [os.path.basename(name.strip()) or call for fd, name, call in found if int(fd) > 2]
    # What was opened by another descriptor's number: a fifo whose other side the shim has left.
    names = ["left" if name.isdigit() else name for name in names]
    return sorted(name.replace(f".{rig.pid}", "") for name in names)


def test_valgrind_with_a_plain_process(rig: Rig, valgrind: list[str]) -> None:
    """Valgrind finds no error, and only what a shim needs to the end is open."""
    launch(rig, valgrind, exiting(7))
    assert rig.end() == (7, 0)
    assert left_open(rig) == ALWAYS


def test_valgrind_with_fifos(rig: Rig, valgrind: list[str]) -> None:
    """With fifos, also the fifos whose output is unread are open, and the watch on them."""
    names = ("stdin", "stdout", "stderr")
    options = [word for name in names for word in (f"--{name}", rig.fifo(name))]
    launch(rig, valgrind, runtime(*shell("cat; echo words; exit 7")), *options)
    rig.control("2 18 0\n1 2 3\n0 0 0\n")
    rig.wait_end()
    wait_for(rig.waiting, "a shim that holds the output")
    assert read_to_end(rig.open("stdout", os.O_RDONLY | os.O_NONBLOCK)) == b"words\n"
    assert rig.end() == (7, 0)
    assert left_open(rig) == sorted([*ALWAYS, "inotify_init1", "left", "stderr", "stdout"])


def test_valgrind_with_a_log(rig: Rig, valgrind: list[str]) -> None:
    """With a log, the log is open too, once, however often the shim rotated it."""
    options = ["--log", f"17000:3:{rig / 'output.log'}"]
    for name in ("stdout", "stderr"):
        rig.fifo(name)
        options += [f"--{name}", f"log:{rig / name}"]
    script = "for i in 1 2 3 4 5; do head -c 9999 /dev/zero; echo; done; printf more >&2; exit 7"
    launch(rig, valgrind, runtime(*shell(script)), *options)
    assert rig.end() == (7, 0)
    assert (rig / "output.log.2").exists()
    held = left_open(rig)
    if "inotify_init1" in held:  # the log was still to be ended when the process was reaped
        held.remove("inotify_init1")
    assert held == sorted([*ALWAYS, "output.log"])


# ---- input at random -----------------------------------------------------------------------


def times(config: pytest.Config) -> int:
    """Return how many times as far the search goes."""
    return 30 if config.getoption("--long") else 1


def test_control_lines_at_random(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Hundreds of thousands of lines do what a slow model of the protocol says."""
    count = LINES * times(pytestconfig)
    parts = [part for part in PARTS["shim"] if part != "shim"]  # the fuzzer includes shim.c
    said = fuzz(tmp_path, "shim_fuzz_control", parts, str(SEED), str(count))
    lines, effects = map(int, re.findall(r"\d+", said))
    assert lines >= count
    assert effects > count // 10


def test_a_log_of_bytes_at_random(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The joined records are what was written, whatever the cuts."""
    path = tmp_path / "output.log"
    count = BYTES * times(pytestconfig)
    fuzz(tmp_path, "shim_fuzz_log", ["words", "files", "index"], str(SEED), str(count), str(path))
    assert path.stat().st_size > count
