"""The lines that supervisors write to `control`."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable

import pytest

from tests.native.rig import SLEEP, Gate, Rig, echoing, read_some, runtime

LOG_LIMIT = 64 * 1024
SEED = 20261123


def test_close_stdin(rig: Rig) -> None:
    """`0 0 0` ends the process's input when the last writer of the input has gone."""
    rig.launch(
        runtime("/bin/cat"), "--stdin", rig.fifo("stdin"), "--stdout", rig.file("stdout", "out")
    )
    rig.running("cat")
    fd = rig.open("stdin", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"first ")
    rig.control("0 0 0\n")
    rig.wait_idle()
    os.write(fd, b"last")
    rig.drop(fd)
    assert rig.end() == (0, 0)
    assert (rig / "out").read_bytes() == b"first last"


def test_close_stdin_twice(rig: Rig) -> None:
    """The second `0 0 0` closes nothing else."""
    rig.launch(runtime(*SLEEP), "--stdin", rig.fifo("stdin"))
    pid = rig.made()
    rig.control("0 0 0\n0 0 0\n")
    rig.control("2 15 0\n")
    assert rig.end() == (143, 15)
    assert rig.log() == []
    assert pid


@pytest.mark.parametrize("number", [1, 2, 9, 15, 34, 64])
def test_signal(rig: Rig, number: int) -> None:
    """`2 N 0` signals the process, real-time signals included."""
    rig.launch(runtime(*SLEEP))
    rig.made()
    rig.control(f"2 {number} 0\n")
    assert rig.end() == (128 + number, number)


def test_lines_wait_for_the_process(rig: Rig) -> None:
    """Lines that come while the runtime works are obeyed in their order afterwards."""
    gate = Gate(rig)
    rig.launch(runtime("/bin/cat", before=gate.wait), "--stdin", rig.fifo("stdin"))
    gate.wait_reached()
    rig.control("nonsense\n0 0 0\n")
    gate.open()
    rig.made()
    assert rig.end() == (0, 0)
    assert [entry["msg"] for entry in rig.log()] == ["control line skipped: nonsense"]


def test_a_signal_line_before_the_process(rig: Rig) -> None:
    """`2 N 0` isn't lost either while the runtime works."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, before=gate.wait))
    gate.wait_reached()
    rig.control("2 9 0\n")
    gate.open()
    rig.made()
    assert rig.end() == (137, 9)


SKIPPED = [
    "",
    " ",
    "0",
    "0 0",
    "0 0 0 0",
    "0 0 0 ",
    "0 0 0\r",
    "0,0,0",
    "zero zero zero",
    "-1 0 0",
    "1 80 24",
    "4 0 0",
    "0 1 0",
    "0 0 1",
    "2 9 1",
    "3 1 0",
    "3 0 1",
    "2 0 0",
    "2 -9 0",
    "2 65 0",
    "2 9",
    "2 9 0x0",
    "2 9.5 0",
    "2 9+0",
    "2 9 00",
    "02 9 0",
    "+2 9 0",
    "2\t9\t0",
    "2  9 0",
    " 2 9 0",
    "-0 0 0",
    "0000000000 0",
    "2 99999999999999999999 0",
    "2 4294967305 0",  # 9, if the number is cut to 32 bits
    "4294967296 0 0",
    "99999999999999999999 0 0",
    '"quoted" \\ \x01\x7f',
    "%s%n%d %x",
]


@pytest.mark.parametrize("line", SKIPPED)
def test_malformed_lines(rig: Rig, line: str) -> None:
    """A line that is none of the four is logged, skipped, and does nothing."""
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("stdin"))
    rig.made()
    rig.control(f"{line}\n0 0 0\n")
    assert rig.end() == (0, 0)
    [entry] = rig.log()
    assert (entry["level"], entry["msg"]) == ("warning", f"control line skipped: {line}")


@pytest.mark.parametrize("line", [b"2 9 0\0", b"\x000 0 0", b"2 9\x00 0", b"2 9 0\x002 9 0", b"\0"])
def test_nul_bytes(rig: Rig, line: bytes) -> None:
    """A line with a NUL isn't taken for the text before the NUL."""
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("stdin"))
    rig.made()
    rig.control(line + b"\n0 0 0\n")
    assert rig.end() == (0, 0)
    assert len(rig.log()) == 1


@pytest.mark.parametrize("size", [127, 128, 129, 255, 256, 4096])
@pytest.mark.parametrize("side", [str.ljust, str.rjust])
def test_long_lines(rig: Rig, size: int, side: Callable[[str, int], str]) -> None:
    """A line that is too long is skipped as a whole, however good the line's beginning or end
    is."""
    line = side("2 9 0", size)
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("stdin"))
    rig.made()
    rig.control(f"{line}\n0 0 0\n")
    assert rig.end() == (0, 0)
    [entry] = rig.log()
    assert entry["msg"] == f"control line skipped: {line[:127]}"


def test_partial_lines(rig: Rig) -> None:
    """A line counts when the newline has come, in however many pieces."""
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("stdin"))
    rig.made()
    for piece in ("0 0 0 0\n", "0", " ", "0 ", "0"):
        rig.control(piece)
        rig.wait_idle()
    assert (rig / "exitStatus").read_bytes().isspace()
    rig.control("\n")
    assert rig.end() == (0, 0)


def test_a_megabyte_of_rubbish(rig: Rig) -> None:
    """Rubbish can't fill the disk through the log, nor keep a good line from being obeyed."""
    random.seed(SEED)
    rubbish = random.randbytes(1 << 20).replace(b"\n0 ", b"")
    rig.launch(runtime(*SLEEP))
    rig.made()
    rig.control(rubbish)
    rig.control("\n2 15 0\n")
    assert rig.end() == (143, 15)
    size = (rig / "shim-log.json").stat().st_size
    assert LOG_LIMIT - 4096 < size <= LOG_LIMIT
    assert all(entry["level"] == "warning" for entry in rig.log())


def test_a_line_without_end(rig: Rig) -> None:
    """A megabyte without a line's end is one line that is too long."""
    rig.launch(runtime(*SLEEP))
    rig.made()
    rig.control("x" * (1 << 20))
    rig.control("\n2 15 0\n")
    assert rig.end() == (143, 15)
    assert len(rig.log()) == 1


ALPHABET = [
    b"0",
    b"1",
    b"2",
    b"3",
    b"9",
    b"64",
    b" ",
    b" ",
    b" ",
    b"-",
    b"+",
    b"\t",
    b"\0",
    b"x",
    b"\xff",
]
EFFECTIVE = re.compile(rb"[023] (0|-?[1-9]\d*) (0|-?[1-9]\d*)")


def test_fuzz(rig: Rig) -> None:
    """20,000 random lines, cut into random pieces, neither break the shim nor touch the process."""
    chance = random.Random(SEED)
    lines: list[bytes] = []
    while len(lines) < 20_000:
        line = b"".join(chance.choices(ALPHABET, k=chance.randrange(12) ** 2 // 4))
        if not EFFECTIVE.fullmatch(line):
            lines.append(line)
    data = b"\n".join(lines) + b"\n"
    rig.launch(runtime("/bin/cat"), "--stdin", rig.fifo("stdin"), "--stdout", rig.fifo("out"))
    rig.made()
    at = 0
    while at < len(data):
        size = chance.randrange(1, 5000)
        rig.control(data[at : at + size])
        at += size
    rig.wait_idle()
    os.write(rig.open("stdin", os.O_WRONLY), b"alive")
    assert read_some(rig.open("out", os.O_RDONLY | os.O_NONBLOCK)) == b"alive"
    rig.control("2 15 0\n")
    assert rig.end() == (143, signal.SIGTERM)
    assert (rig / "shim-log.json").stat().st_size <= LOG_LIMIT


def test_all_lines_are_read_before_the_shim_waits(rig: Rig) -> None:
    """A burst of lines needs no further event to be read completely."""
    rig.launch(runtime(*echoing(signal.SIGUSR1)), "--stdout", rig.fifo("out"))
    rig.made()
    fd = rig.open("out", os.O_RDONLY | os.O_NONBLOCK)
    assert read_some(fd) == b"ready\n"
    rig.control("nonsense\n" * 300 + f"2 {int(signal.SIGUSR1)} 0\n")
    assert read_some(fd) == f"{int(signal.SIGUSR1)}\n".encode()
    rig.control("2 9 0\n")
    assert rig.end() == (137, 9)
