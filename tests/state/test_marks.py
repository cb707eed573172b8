"""The small files of the shim and the runtime: exitStatus, pid, starttime, shim."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor.state import read_exit_status, read_pid, read_shim, read_starttime
from supervisor.state._marks import MAX_MARK_BYTES
from supervisor.values._errors import StateCorrupt
from supervisor.values._status import Cause, ExitStatus, Source
from tests.support.settings import BRIEF, THOROUGH

READERS: list[Callable[[str], Any]] = [
    read_exit_status,
    read_pid,
    read_shim,
    read_starttime,
]
AT_NS = 1_700_000_000_123_456_789

each_reader = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks") / "mark"


def read(reader: Callable[[str], Any], file: Path, data: bytes) -> Any:
    """Let ``reader`` read ``data`` from a file."""
    file.write_bytes(data)
    return reader(str(file))


def refused(reader: Callable[[str], Any], file: Path, data: bytes) -> None:
    with pytest.raises(StateCorrupt) as caught:
        read(reader, file, data)
    assert caught.value.path == str(file)
    assert caught.value.reason


# ---- all of them -----------------------------------------------------------------


@each_reader
@pytest.mark.parametrize("size", [MAX_MARK_BYTES + 1, 1 << 40])
def test_a_long_file_is_not_read(reader: Callable[[str], Any], tmp_path: Path, size: int) -> None:
    """A mark is a few bytes: a huge file from a broken disk isn't read into memory."""
    path = tmp_path / "mark"
    path.write_bytes(b" " * MAX_MARK_BYTES)
    assert reader(str(path)) is None
    os.truncate(path, size)
    with pytest.raises(StateCorrupt, match=f"longer than {MAX_MARK_BYTES} bytes"):
        reader(str(path))


@each_reader
def test_a_missing_file_is_not_yet(reader: Callable[[str], Any], tmp_path: Path) -> None:
    """A file, or a whole directory, that isn't there says nothing."""
    assert reader(str(tmp_path / "mark")) is None
    assert reader(str(tmp_path / "gone" / "mark")) is None


@each_reader
@pytest.mark.parametrize("blank", [b"", b" ", b"\n", b" " * 64, b" " * 63 + b"\n", b"\n \n  \n"])
def test_a_blank_file_is_not_yet(reader: Callable[[str], Any], file: Path, blank: bytes) -> None:
    """A mark that was made ahead and isn't written yet says nothing."""
    assert read(reader, file, blank) is None


GARBAGE = [
    b"x", b"-1", b"+1", b"1.5", b"1e3", b"0x10", b"1_0", b"\xd9\xa1", b"\xb2", b"\0", b"1\0",
    b"\0" * 64, b"1\t2", b"1,2", b"1\n2", b"1  2", b"9" * 25, b"9" * 5000, b"null", b"\xff",
    b"1 2 3", b"1 2 3 4 5", b"{}", b'"1"', b"\t1", b"1\r\n",
]  # fmt: skip


@each_reader
def test_garbage_is_refused(reader: Callable[[str], Any], file: Path) -> None:
    """Anything but plain ASCII digits in their places is refused, with path and reason."""
    for garbage in GARBAGE:
        refused(reader, file, garbage)


@each_reader
def test_what_is_no_file_is_refused(reader: Callable[[str], Any], tmp_path: Path) -> None:
    """A directory or a fifo in a mark's place is corrupt, and doesn't block."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(StateCorrupt, match="regular"):
            reader(str(path))


@THOROUGH
@given(reader=st.sampled_from(READERS), data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(
    file: Path, reader: Callable[[str], Any], data: bytes
) -> None:
    """No content raises anything else than StateCorrupt."""
    try:
        read(reader, file, data)
    except StateCorrupt as error:
        assert error.path == str(file)


@THOROUGH
@given(
    reader=st.sampled_from(READERS),
    text=st.text("0123456789 \n+-x", max_size=40),
)
def test_any_numbers_are_read_or_refused(
    file: Path, reader: Callable[[str], Any], text: str
) -> None:
    """Text that looks nearly right is read or refused, with the file's path."""
    try:
        read(reader, file, text.encode())
    except StateCorrupt as error:
        assert error.path == str(file)


# ---- exitStatus ------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["", "\n", " " * 40 + "\n"])
def test_every_exit_code(file: Path, padding: str) -> None:
    """All 256 exit codes are read as they are, those above 128 as well."""
    for code in range(256):
        status = read(read_exit_status, file, f"{code} 0 {AT_NS} 0{padding}".encode())
        assert status == ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=code, at_ns=AT_NS)
        assert int(status) == code


def test_every_signal(file: Path) -> None:
    """All 64 signals are read, with and without a core."""
    for number in range(1, 65):
        for core in (0, 1):
            status = read(read_exit_status, file, f"{128 + number} {number} 5 {core}\n".encode())
            assert status.cause is Cause.SIGNALLED
            assert status.source is Source.SHIM
            assert status.signal == number
            assert status.code is None
            assert status.core_dumped == bool(core)
            assert status.at_ns == 5
            assert int(status) == 128 + number


def test_a_signal_has_its_name(file: Path) -> None:
    """A signal that Python knows is a Signals."""
    assert read(read_exit_status, file, b"137 9 0 0").signal is signal.SIGKILL


def test_every_lone_integer(file: Path) -> None:
    """A lone integer is an exit code, and nothing is made up: neither a signal nor a time."""
    for code in range(256):
        for end in ("", "\n") if code % 16 == 0 else ("\n",):
            status = read(read_exit_status, file, f"{code}{end}".encode())
            assert status == ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=code)


@pytest.mark.parametrize(
    "text",
    [
        "256", "999", "256 0 5 0", "999 0 5 0", "0 0 5 1", "0 0 5 2", "9 9 5 0", "137 0 5 1",
        "138 9 5 0", "137 10 5 0", "193 65 5 0", "137 9 -5 0", "137 9 5", "137 9", "137 9 5 0 0",
        "137  9 5 0", "0 0 99999999999999999999 0", "137 9 5 0 x",
    ],
)  # fmt: skip
def test_a_status_that_can_not_be_is_refused(file: Path, text: str) -> None:
    """A code beyond 255, a code that isn't 128 + the signal, a core without a signal."""
    refused(read_exit_status, file, text.encode())


def test_a_status_cut_off(file: Path) -> None:
    """A truncated status is refused, but for what is left of the code alone."""
    whole = f"137 9 {AT_NS} 1".encode()
    for size in range(4, len(whole)):
        if whole[:size] == b"137 ":
            continue
        refused(read_exit_status, file, whole[:size])


@BRIEF
@given(
    code=st.integers(0, 255),
    at_ns=st.integers(0, 2**63 - 1),
    left=st.text(" \n", max_size=5),
    right=st.text(" \n", max_size=60),
)
@example(code=0, at_ns=0, left="", right="")
def test_blanks_around_a_status_are_nothing(
    file: Path, code: int, at_ns: int, left: str, right: str
) -> None:
    """The shim writes over a longer line of blanks."""
    status = read(read_exit_status, file, f"{left}{code} 0 {at_ns} 0{right}".encode())
    assert status.code == code
    assert status.at_ns == at_ns


# ---- pid, starttime, shim --------------------------------------------------------


@pytest.mark.parametrize("pid", [1, 42, 2**22, 2**31 - 1])
def test_a_pid(file: Path, pid: int) -> None:
    """A pid is read with or without a line end."""
    assert read(read_pid, file, f"{pid}".encode()) == pid
    assert read(read_pid, file, f"{pid}\n".encode()) == pid


@pytest.mark.parametrize("text", ["0", "2147483648", "99999999999", "1 2"])
def test_what_is_no_pid(file: Path, text: str) -> None:
    """Signalling 0 or a negative number would hit a whole group."""
    refused(read_pid, file, text.encode())
    if " " not in text:
        refused(read_shim, file, f"{text} 5".encode())


@pytest.mark.parametrize("ticks", [0, 1, 2**63, 2**64 - 1])
def test_a_start_time(file: Path, ticks: int) -> None:
    """A start time is an unsigned 64-bit number."""
    assert read(read_starttime, file, f"{ticks}\n".encode()) == ticks
    assert read(read_shim, file, f"7 {ticks}\n".encode()) == (7, ticks)
    refused(read_starttime, file, f"{2**64}".encode())
    refused(read_shim, file, f"7 {2**64}".encode())


@pytest.mark.parametrize("text", ["7", "7 ", "7 x", "x 7", "7 5 3", " 5"])
def test_a_shim_is_a_pair(file: Path, text: str) -> None:
    """A pid without a start time is corrupt: a pid alone doesn't name a process."""
    refused(read_shim, file, text.encode())
