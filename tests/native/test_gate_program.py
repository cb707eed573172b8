"""The gate reads one frame, obeys the frame, and becomes the program; or reports why that fails."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import supervisor.native
from supervisor import InvalidValue
from supervisor.bundle import frame
from supervisor.bundle._gate import gate_path
from tests.native.fuzzing import fuzz
from tests.native.gate import SHOWING, pass_gate
from tests.native.programs import SANITIZE

SEED = 20261125
FRAMES = 100_000
MUTATIONS = 150

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A build that stops at undefined behaviour."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: install gcc")
    places = [Path(directory, "gate.c") for directory in supervisor.native.__path__]
    source = next(path for path in places if path.exists())
    binary = str(tmp_path_factory.mktemp("gate") / "supervisor-gate")
    flags = f"@{source.parent / 'compile_flags.txt'}"
    subprocess.run([compiler, flags, *SANITIZE, "-o", binary, str(source)], check=True)
    return binary


@pytest.fixture(params=["shipped", "sanitized"])
def gate(request: pytest.FixtureRequest) -> str:
    """The program."""
    if request.param == "shipped":
        return gate_path()
    path: str = request.getfixturevalue("sanitized")
    return path


def told(*args: str, **options: Any) -> bytes:
    """Return a frame for these arguments."""
    return frame(**{"args": args, "env": {}, "cwd": None, "files": None, **options})


def test_what_follows_the_frame_is_the_programs(gate: str) -> None:
    """Arguments, environment and directory are the frame's, and the input is what comes next."""
    sent = told(*SHOWING, "a", "", "é b", env={"B": "2", "C": "=\n"}, cwd="/usr")
    passed = pass_gate(gate, sent + b"input", env={"A": "1", "B": "1"})
    shown = json.loads(passed.out)
    assert (passed.report, passed.code, passed.left) == (b"go\n", 0, b"")
    assert shown["args"] == ["a", "", "é b"]
    assert {name: shown["env"].get(name) for name in "ABC"} == {"A": "1", "B": "2", "C": "=\n"}
    assert (shown["cwd"], shown["stdin"], shown["fds"]) == ("/usr", "input", [0, 1, 2])


def test_not_a_byte_too_many_is_read(gate: str) -> None:
    """A program that reads nothing leaves all input behind the frame unread."""
    content = bytes(range(256)) * 300
    passed = pass_gate(gate, told("/bin/true", files={"/dev/null": content}) + b"left")
    assert (passed.report, passed.code, passed.left) == (b"go\n", 0, b"left")


def test_files_are_written_as_told(gate: str, tmp_path: Path) -> None:
    """With their content and mode, whatever the umask, whatever was there, and with parents."""
    old, new, deep = tmp_path / "old", tmp_path / "new", tmp_path / "a/b/c"
    old.write_text("longer than what comes")
    old.chmod(0o777)
    content = bytes(range(256)) * 4096
    files = {str(old): b"x", str(new): (content, 0o4751), str(deep): (b"", 0)}
    passed = pass_gate(gate, told("/bin/true", files=files), umask=0o77)
    assert passed.report == b"go\n"
    assert (old.read_bytes(), new.read_bytes()) == (b"x", content)
    modes = [path.stat().st_mode & 0o7777 for path in (old, new, deep)]
    assert modes == [0o644, 0o4751, 0]


def test_a_link_leads_where_it_leads(gate: str, tmp_path: Path) -> None:
    """A file is written through a symbolic link, as by any program inside."""
    (tmp_path / "link").symlink_to("target")
    assert pass_gate(gate, told("/bin/true", files={str(tmp_path / "link"): b"x"})).code == 0
    assert (tmp_path / "target").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("options", "report", "code"),
    [
        ({"args": ["/nowhere/at/all"]}, ("program", errno.ENOENT, "/nowhere/at/all"), 127),
        ({"args": ["nowhere-on-path"]}, ("program", errno.ENOENT, "nowhere-on-path"), 127),
        ({"args": ["/"]}, ("program", errno.EACCES, "/"), 126),
        ({"args": ["/etc/passwd"]}, ("program", errno.EACCES, "/etc/passwd"), 126),
        ({"args": ["true"], "env": {"PATH": "/etc:/"}}, ("program", errno.ENOENT, "true"), 127),
        ({"args": ["passwd"], "env": {"PATH": "/etc"}}, ("program", errno.EACCES, "passwd"), 126),
        ({"args": ["true", "x" * 200_000]}, ("program", errno.E2BIG, "true"), 126),
        ({"cwd": "/nowhere"}, ("cwd", errno.ENOENT, "/nowhere"), 125),
        ({"cwd": "/etc/passwd"}, ("cwd", errno.ENOTDIR, "/etc/passwd"), 125),
        ({"files": {"/proc/x/y": b"x"}}, ("file", errno.ENOENT, "/proc/x/y"), 125),
        ({"files": {"/usr": b"x"}}, ("file", errno.EISDIR, "/usr"), 125),
        ({"files": {"/dev/full": b"x"}}, ("file", errno.ENOSPC, "/dev/full"), 125),
        ({"files": {"/etc/passwd/x": b"x"}}, ("file", errno.ENOTDIR, "/etc/passwd/x"), 125),
    ],
)
def test_what_cannot_be_done(
    gate: str, options: dict[str, Any], report: tuple[str, int, str], code: int
) -> None:
    """The gate reports what failed, why, and for which name; the exit code is the shell's."""
    options = {"args": ["true"], **options}
    options["env"] = {"PATH": "/usr/bin:/bin", **options.get("env", {})}
    passed = pass_gate(gate, told(**options))
    go = "go\n" if report[0] == "program" else ""
    assert passed.report.decode() == go + f"{report[0]} {report[1]} {report[2]}"
    assert (passed.code, passed.out) == (code, b"")


def test_a_fifo_that_nobody_reads_is_an_error(gate: str, tmp_path: Path) -> None:
    """A fifo without a reader is an error, because opening the fifo would wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    passed = pass_gate(gate, told("/bin/true", files={str(tmp_path / "fifo"): b"x"}))
    assert passed.report == f"file {errno.ENXIO} {tmp_path / 'fifo'}".encode()


def test_a_script_needs_its_interpreter_named(gate: str, tmp_path: Path) -> None:
    """A runtime takes no shell for a file without ``#!``; nor does the gate."""
    script = tmp_path / "script"
    script.write_text("exit 0\n")
    script.chmod(0o755)
    for args in ([str(script)], ["script"]):
        passed = pass_gate(gate, told(*args, env={"PATH": str(tmp_path)}))
        assert passed.report.startswith(b"go\nprogram %d " % errno.ENOEXEC)


def test_the_first_that_can_be_run_is_found(gate: str, tmp_path: Path) -> None:
    """In the frame's PATH, in order, what can't be run being passed over; empty is here."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prog").write_text(f"#!/bin/sh\necho {name}\n")
    (tmp_path / "second/prog").chmod(0o755)
    path = f"/nowhere:/etc/passwd:{tmp_path}/first:{tmp_path}/second"
    assert pass_gate(gate, told("prog", env={"PATH": path})).out == b"second\n"
    passed = pass_gate(gate, told("prog", env={"PATH": ":/usr"}, cwd=f"{tmp_path}/second"))
    assert passed.out == b"second\n"


def good_frame(tmp_path: Path) -> bytes:
    files = {f"{tmp_path}/f": b"content", f"{tmp_path}/g": (b"\0" * 20, 0o600)}
    return told("/bin/true", "x", env={"A": "1"}, cwd="/", files=files)


def test_a_frame_that_ends_early(sanitized: str, tmp_path: Path) -> None:
    """A frame that is cut anywhere runs nothing, and the gate says so."""
    whole = good_frame(tmp_path)
    assert pass_gate(sanitized, whole).report == b"go\n"
    for size in [*range(0, 28), *range(28, len(whole), 5), len(whole) - 1]:
        passed = pass_gate(sanitized, whole[:size])
        assert (passed.report, passed.code) == (b"frame %d ends early" % errno.EBADMSG, 125)


def test_a_frame_that_was_changed(sanitized: str, tmp_path: Path) -> None:
    """Whatever a few changed bytes say, the gate becomes a program or refuses, in good order."""
    source = random.Random(SEED)
    whole = good_frame(tmp_path)
    for _ in range(MUTATIONS):
        changed = bytearray(whole)
        for _ in range(source.randint(1, 3)):
            place = source.randrange(24) if source.random() < 0.5 else source.randrange(len(whole))
            changed[place] = source.choice([0, 1, 2, 0x7F, 0x80, 0xFF, source.randrange(256)])
        # A path may have been changed: nothing of this machine is to be written.
        if whole.count(str(tmp_path).encode()) == changed.count(str(tmp_path).encode()):
            passed = pass_gate(sanitized, bytes(changed))
            words = passed.report.removeprefix(b"go\n").split(b" ")
            assert passed.report == b"go\n" or words[0] in (b"frame", b"file", b"cwd", b"program")
            assert passed.code in (0, 125, 126, 127), passed


def test_frames_at_random(tmp_path: Path) -> None:
    """Each frame has the effect that a slow model gives, and takes no byte behind the frame from
    stdin."""
    said = fuzz(tmp_path, "gate_fuzz", [], str(SEED), str(FRAMES))
    assert int(said.split(" ")[2]) > FRAMES // 10


def test_without_a_report_it_does_nothing(gate: str) -> None:
    """A gate without descriptor 3 does nothing, because no one waits for the report."""
    done = subprocess.run([gate], input=told("/bin/echo", "x"), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (125, b"")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"files": ["/x"]}, "files must be a mapping of paths, not list"),
        ({"files": {"x": b""}}, "a path in files must be an absolute path"),
        ({"files": {"/x\0": b""}}, "a path in files holds a NUL"),
        ({"files": {"/" + "x" * 4095: b""}}, "longer than 4095 bytes"),
        ({"files": {"/x": "text"}}, "must be bytes, or bytes and a mode"),
        ({"files": {"/x": (b"", 0o10000)}}, "a mode must be from 0 to 4095"),
        ({"args": ["x" * (9 << 20)]}, "args and env are too long"),
    ],
)
def test_a_frame_that_cannot_be_made(options: dict[str, Any], said: str) -> None:
    """A frame that no gate could read is refused, by name."""
    with pytest.raises(InvalidValue, match=said):
        told(**{"args": ["true"], **options})
