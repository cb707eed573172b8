"""The report of each thing that can go wrong before there is a process."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.programs import Programs
from tests.native.rig import SLEEP, Gate, Rig, exiting, gone, root_only, runtime, shell
from tests.support.leaks import wait_for

release_only = pytest.mark.parametrize("programs", ["release"], indirect=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage:"),
        (["--"], "usage:"),
        (["--stdin", "null"], "usage:"),
        (["--stdin"], "--stdin needs a value"),
        (["--colour", "red", "--", "/bin/true"], "unknown option --colour"),
        (["/bin/true"], "/bin/true needs a value"),
        (["--directory", "/no/such", "--", "/bin/true"], "cannot enter /no/such: No such"),
        (["--leash", "3", "--", "/bin/true"], "--leash takes PIPE:PIDFD"),
        (["--leash", "3:x", "--", "/bin/true"], "--leash takes PIPE:PIDFD"),
        (["--leash", "3:4:5", "--", "/bin/true"], "--leash takes PIPE:PIDFD"),
        (["--leash", "-3:4", "--", "/bin/true"], "--leash takes PIPE:PIDFD"),
        (["--leash", "1:4", "--", "/bin/true"], "--leash takes PIPE:PIDFD"),
        (["--leash", "500:501", "--", "/bin/true"], "descriptor 500: Bad file"),
        (["--stdout", "fd:500", "--", "/bin/true"], "descriptor 500: Bad file"),
        (["--stdout", "fd:1", "--", "/bin/true"], "bad stdio fd:1"),
        (["--stdin", "fd:-1", "--", "/bin/true"], "bad stdio fd:-1"),
        (["--stdin", "fd:7x", "--", "/bin/true"], "bad stdio fd:7x"),
        (["--stdin", "fd:", "--", "/bin/true"], "bad stdio fd:"),
        (["--stdin", "file", "--", "/bin/true"], "bad stdio file"),
        (["--stdin", "", "--", "/bin/true"], "bad stdio "),
        (["--stdin", "stdout", "--", "/bin/true"], "bad stdio stdout"),
        (["--stdout", "stdout", "--", "/bin/true"], "bad stdio stdout"),
    ],
)
def test_bad_options(rig: Rig, words: list[str], said: str) -> None:
    """A command line that can't be obeyed is refused by name, and nothing is run."""
    rig.launch_words([rig.programs.shim, *words], cwd=rig.path)
    assert rig.refused("options")["error"].startswith(said)
    assert not (rig / "pid").exists()


def test_bad_options_are_not_logged_where_it_happens_to_be(rig: Rig) -> None:
    """A shim writes nothing, anywhere, before it is in the process directory."""
    before = os.listdir(rig.path)
    rig.launch_words([rig.programs.shim, "--help"], cwd=rig.path)
    rig.refused("options")
    assert os.listdir(rig.path) == before


def test_without_a_pipe_to_report_to(rig: Rig) -> None:
    """A launcher that closed the shim's stdout wants nothing to be made."""
    command = [
        rig.programs.shim,
        "--directory",
        str(rig.path),
        "--",
        "/bin/touch",
        str(rig / "ran"),
    ]
    assert (
        subprocess.run(["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command], check=False).returncode
        == 1
    )
    assert not (rig / "ran").exists()


def test_missing_files(rig: Rig) -> None:
    """A file that the shim can't write in the process directory is reported, with the reason."""
    (rig / "shim").mkdir()
    rig.launch(exiting(0))
    told = rig.refused("files")
    assert told["error"] == "cannot write shim: Is a directory"
    assert told["errno"] == errno.EISDIR
    assert rig.log()[-1]["msg"] == "files: cannot write shim: Is a directory"


@pytest.fixture
def small(rig: Rig) -> Iterator[Path]:
    """Mount a tiny file system on the process directory; give the file that fills the file
    system."""
    page = resource.getpagesize()
    options = f"size={5 * page},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", rig.path], check=True)
    for name in ("exit", "control"):
        os.mkfifo(rig / name, 0o600)
    exit_fd = os.open(rig / "exit", os.O_RDONLY | os.O_NONBLOCK)
    yield rig / "filler"
    os.close(exit_fd)
    rig.close()
    rig.shim = None
    rig._fds.clear()
    subprocess.run(["umount", rig.path], check=True)


@root_only
@pytest.mark.parametrize(("pages", "name"), [(0, "shim"), (1, "exitStatus"), (3, "starttime")])
def test_a_full_disk(rig: Rig, small: Path, pages: int, name: str) -> None:
    """Without room for one of its files the shim reports ENOSPC, and ends what was made."""
    small.write_bytes(b"x" * (5 - pages) * resource.getpagesize())
    rig.launch(runtime(*SLEEP))
    told = rig.refused("files")
    assert (told["error"], told["errno"]) == (
        f"cannot write {name}: No space left on device",
        errno.ENOSPC,
    )
    if (rig / "pid").exists():
        assert gone(int((rig / "pid").read_text()))


@root_only
def test_a_disk_that_fills_up_later(rig: Rig, small: Path) -> None:
    """A disk that is full when the process ends doesn't lose the exit status."""
    rig.launch(runtime(*SLEEP))
    pid = rig.made()
    with pytest.raises(OSError, match="No space"):
        small.write_bytes(b"x" * 5 * resource.getpagesize())
    os.kill(pid, signal.SIGTERM)
    assert rig.wait_gone() == 0
    assert rig.recorded()[:2] == (143, 15)


@release_only
def test_every_shortage_of_descriptors(programs: Programs, tmp_path: Path) -> None:
    """However few descriptors there are, the shim either makes a process or reports EMFILE."""
    outcomes = []
    for limit in range(4, 20):
        with contextlib.closing(Rig(programs, tmp_path / str(limit))) as rig:
            outcomes.append(shortage(rig, limit))
    order = ["start", "files", "fifos", "stdio", "made"]
    assert [phase for phase in dict.fromkeys(outcomes) if phase != "runtime"] == order


def shortage(rig: Rig, limit: int) -> str:
    """Run a shim that may have ``limit`` descriptors; return the phase that the shim reached."""
    options: list[str] = []
    for name in ("stdin", "stdout", "stderr"):
        options += [f"--{name}", rig.fifo(name)]
    allow = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))
    rig.launch(exiting(0), *options, preexec_fn=allow)
    told = rig.say()
    if "error" not in told:
        assert rig.end() == (0, 0)
        return "made"
    assert rig.wait_gone() == 1
    # A runtime with too few descriptors fails by itself, and the shim reports no errno.
    assert told["errno"] == (0 if told["phase"] == "runtime" else errno.EMFILE), told
    return str(told["phase"])


def test_no_reader_of_exit(rig: Rig) -> None:
    """Without a reader of `exit` the launcher is gone, so nothing is run."""
    rig.drop_exit()
    rig.launch(["/bin/touch", "ran"])
    told = rig.refused("fifos")
    assert told["errno"] == errno.ENXIO
    assert told["error"].startswith("cannot open exit: ")
    assert not (rig / "ran").exists()


@pytest.mark.parametrize("name", ["exit", "control"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_own_fifos_that_are_none(rig: Rig, name: str, kind: str) -> None:
    """An `exit` or `control` that is missing or no fifo is refused: a file is always readable."""
    (rig / name).unlink()
    if kind == "file":
        (rig / name).touch()
    rig.launch(["/bin/touch", "ran"])
    error = rig.refused("fifos")["error"]
    assert error == (
        f"{name} is not a fifo"
        if kind == "file"
        else f"cannot open {name}: No such file or directory"
    )
    assert not (rig / "ran").exists()


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_stdio_that_is_no_fifo(rig: Rig, name: str) -> None:
    """A stream that was named as a fifo and is something else, or nothing, is refused."""
    (rig / "file").touch()
    rig.launch(["/bin/touch", "ran"], f"--{name}", "fifo:file")
    assert rig.refused("stdio")["error"] == "file is not a fifo"
    assert not (rig / "ran").exists()


@pytest.mark.parametrize("spec", ["fifo:none", "fd:{fd}"])
def test_stdio_that_is_missing(rig: Rig, spec: str) -> None:
    """A missing fifo is refused, with the path and the reason, also for a copier."""
    fd = rig.open("file", os.O_RDONLY | os.O_CREAT)
    words = ["--stdin", spec.format(fd=fd)]
    rig.launch(["/bin/touch", "ran"], *words, pass_fds=[fd])
    told = rig.refused("stdio")
    name = "none" if spec == "fifo:none" else "stdin"
    assert told["error"] == f"cannot open {name}: No such file or directory"
    assert told["errno"] == errno.ENOENT


def test_a_fifo_of_somebody_elses_that_is_none(rig: Rig) -> None:
    """A hold:N that is no fifo is refused; a fifo is opened for both sides."""
    (rig / "file").touch()
    rig.launch(["/bin/touch", "ran"], "--stdout", rig.held("stdout", "file"))
    assert rig.refused("stdio")["error"].endswith("is not a fifo")
    assert not (rig / "ran").exists()


@pytest.mark.parametrize(
    ("program", "number"),
    [
        ("/no/such/runtime", errno.ENOENT),
        ("/etc/passwd", errno.EACCES),
        ("/", errno.EACCES),
        ("", errno.ENOENT),
    ],
)
def test_a_runtime_that_cannot_be_run(rig: Rig, program: str, number: int) -> None:
    """A runtime that is missing or no program is reported differently from a failing one."""
    rig.launch([program, "create"])
    told = rig.refused("launch")
    assert told["error"] == f"cannot run {program}: {os.strerror(number)}"
    assert told["errno"] == number


def test_a_runtime_for_another_machine(rig: Rig) -> None:
    """A file that is executable and no program is an error of the launch, too."""
    (rig / "runtime").write_bytes(b"\x00not a program")
    (rig / "runtime").chmod(0o700)
    rig.launch([str(rig / "runtime")])
    assert rig.refused("launch")["errno"] == errno.ENOEXEC


@pytest.mark.parametrize("code", [1, 2, 127, 255])
def test_a_runtime_that_fails(rig: Rig, code: int) -> None:
    """A runtime's exit code is reported as a number; the runtime's own log says why."""
    rig.launch(shell(f"exit {code}"))
    told = rig.refused("runtime")
    assert (told["code"], told["signal"], told["errno"]) == (code, 0, 0)
    assert told["error"] == f"/bin/bash exited with status {code}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_runtime_that_is_killed(rig: Rig, number: signal.Signals) -> None:
    """A runtime that a signal ended is reported with that signal."""
    rig.launch(shell(f"kill -{int(number)} $$"))
    told = rig.refused("runtime")
    assert (told["code"], told["signal"], told["errno"]) == (0, number, 0)


def test_a_runtime_that_fails_late(rig: Rig) -> None:
    """The processes that a failing runtime has made are ended, and their children as well."""
    process = "(sleep 1000 & echo $! >grandchild; wait) & echo $! >pid"
    rig.launch(shell(f"set -m; {process}; until [ -s grandchild ]; do :; done; exit 4"))
    assert rig.refused("runtime")["code"] == 4
    assert gone(int((rig / "pid").read_text()))
    assert gone(int((rig / "grandchild").read_text()))


def test_children_are_ended_without_descriptors(rig: Rig) -> None:
    """A shim that may open nothing more still finds and ends what a failing runtime has made."""
    gate = Gate(rig)
    rig.launch(runtime(*SLEEP, after=f"{gate.wait} exit 4"))
    gate.wait_reached()
    wait_for(rig.idle, "a shim that has closed the process's streams")
    child = int((rig / "pid").read_text())
    most = max(int(name) for name in os.listdir(f"/proc/{rig.pid}/fd"))
    used = len(os.listdir(f"/proc/{rig.pid}/fd"))
    assert most == used - 1  # there is no gap below
    resource.prlimit(rig.pid, resource.RLIMIT_NOFILE, (used, used))
    gate.open()
    assert rig.refused("runtime")["code"] == 4
    assert gone(child)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "the pid file holds no pid: "),
        ("\n", "the pid file holds no pid: \n"),
        ("0", "the pid file holds no pid: 0"),
        ("1", "the pid file holds no pid: 1"),
        ("-5", "the pid file holds no pid: -5"),
        ("12x", "the pid file holds no pid: 12x"),
        ("12 13", "the pid file holds no pid: 12 13"),
        ("gar\0bage", "the pid file holds no pid: gar"),
        ("99999999999", "the pid file holds no pid: 99999999999"),
        ("9" * 400, "the pid file holds no pid: " + "9" * 63),
        ("2147483646", "the pid file holds no pid: 2147483646"),
    ],
)
def test_a_pid_file_with_something_else(rig: Rig, written: str, said: str) -> None:
    """A pid file that holds no pid is no process: nothing is signalled or watched."""
    (rig / "written").write_text(written)
    rig.launch(["/bin/cp", "written", "pid"])
    assert rig.refused("pid")["error"] == said


def test_no_pid_file(rig: Rig) -> None:
    """A runtime that claims success and writes no pid has made nothing that we can watch."""
    rig.launch(["/bin/true"])
    said = "/bin/true succeeded but wrote no pid file: No such file or directory"
    assert rig.refused("pid")["error"] == said


@pytest.mark.parametrize("whose", ["ours", "nobody's"])
def test_a_pid_of_somebody_else(rig: Rig, whose: str) -> None:
    """A process that isn't the shim's child is refused, and never signalled."""
    stranger = subprocess.Popen(SLEEP)
    try:
        pid = stranger.pid if whose == "ours" else 2**22 + 1
        rig.launch(shell(f"echo {pid} >pid"))
        assert (
            rig.refused("pid")["error"]
            == f"the pid file names {pid}, which is no child of the shim"
        )
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_refused_process_is_ended(rig: Rig) -> None:
    """A process whose pid file can't be understood doesn't stay behind unsupervised."""
    rig.launch(runtime(*SLEEP, after="cp pid real; echo no >pid"))
    rig.refused("pid")
    assert gone(int((rig / "real").read_text()))


STRANGE = [
    b'/no/"such" \\runtime',
    b"/no/line\nbreak\tand\x01\x1f\x7f",
    "/no/Löffel/\u2603/\U0001f600".encode(),
    b"/no/\xff\xfe\xc0\xaf/\x80",
    b"/no/" + b'"' * 3000,
    b"/no/" + b"\xff" * 3000,
    b"/no/%s%n%d",
]


@pytest.mark.parametrize("path", STRANGE, ids=range(len(STRANGE)))
def test_strange_strings(rig: Rig, path: bytes) -> None:
    """Any bytes in a path make one line of JSON, each of them one character, and so in the log."""
    rig.launch([path])
    error = rig.refused("launch")["error"]
    expected = b"cannot run " + path
    assert error.encode("latin-1").startswith(expected[:300])
    assert rig.log()[-1]["level"] == "error"
    assert rig.log()[-1]["msg"].startswith("launch: cannot run /no/")
    if len(path) < 100:
        assert error.encode("latin-1") == expected + b": No such file or directory"


@pytest.mark.parametrize("phase", ["options", "runtime"])
def test_a_launcher_that_does_not_listen(rig: Rig, phase: str) -> None:
    """A report without a reader (EPIPE) makes no difference to the shim's end."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    command: list[str | bytes] = ["/bin/false"] if phase == "runtime" else []
    rig.launch(command, stdout=write_fd)
    os.close(write_fd)
    assert rig.wait_gone() in {1, -signal.SIGPIPE}
