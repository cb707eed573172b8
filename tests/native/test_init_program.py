"""The tiny init, as any process: the shipped build and the sanitized one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import supervisor.native
from supervisor.spec._init import init_path
from tests.support.bundle_running import SECONDS

FLAGS = """
    -std=c11 -g -Wall -Wextra -Werror -Wshadow -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes
    -Wconversion -fsanitize=address,undefined -fno-sanitize-recover=all
"""


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A build that stops at undefined behaviour."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: install gcc")
    source = next(
        path
        for directory in supervisor.native.__path__
        if (path := Path(directory, "init.c")).exists()
    )
    binary = str(tmp_path_factory.mktemp("init") / "supervisor-init")
    subprocess.run([compiler, *FLAGS.split(), "-o", binary, str(source)], check=True)
    return binary


@pytest.fixture(params=["shipped", "sanitized"])
def init(request: pytest.FixtureRequest) -> str:
    """The program."""
    if request.param == "shipped":
        return init_path()
    path: str = request.getfixturevalue("sanitized")
    return path


@contextlib.contextmanager
def started(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a session of processes, and end them all: the init's death doesn't end its program."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        for entry in os.listdir("/proc"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                if os.getsid(int(entry)) == process.pid:
                    os.kill(int(entry), signal.SIGKILL)
        process.communicate()


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    with started(*command, stderr=subprocess.PIPE, **options) as process:
        out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_every_exit_code() -> None:
    """The init exits with the program's exit code, for each of the 256 codes."""
    codes = [run(init_path(), "--", "sh", "-c", f"exit {code}").returncode for code in range(256)]
    assert codes == list(range(256))


def test_every_fatal_signal(init: str) -> None:
    """When a signal killed the program, the init exits with 128 plus the signal's number."""
    harmless = {"SIGCHLD", "SIGCLD", "SIGCONT", "SIGURG", "SIGWINCH"}
    stopping = {"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
    for number in sorted(signal.valid_signals()):
        if getattr(number, "name", "") not in harmless | stopping:
            done = run(init, "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
            assert done.returncode == 128 + number, done


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/nowhere/at/all"], 127, "can't run /nowhere/at/all: No such file or directory"),
        (["--", "nowhere-on-path"], 127, "can't run nowhere-on-path: No such file"),
        (["/"], 126, "can't run /: Permission denied"),
        (["/dev/null/x"], 126, "can't run /dev/null/x: Not a directory"),
        (["/" + "x" * 600], 126, "can't run /xxx"),
        ([], 125, "usage: supervisor-init"),
        (["--"], 125, "usage: supervisor-init"),
    ],
)
def test_what_cannot_be_run(init: str, words: list[str], code: int, said: str) -> None:
    """A program that can't be run is named with the reason, and the code is the shell's."""
    done = run(init, *words)
    assert done.returncode == code
    assert done.stderr.startswith("supervisor-init: ")
    assert said in done.stderr


def test_only_the_first_dashes_are_ours(init: str) -> None:
    """All words behind the program belong to the program, dashes too."""
    assert run(init, "--", "printf", "%s,", "--", "-x", "").stdout == "--,-x,,"


def test_the_programs_signals_are_as_at_birth(init: str) -> None:
    """The program starts with no blocked and no ignored signal, whatever the init started with.

    While SIGCHLD was ignored, the kernel reaped the program without a report.
    """

    def spoil() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    command = [init, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    done = run(*command, preexec_fn=spoil, restore_signals=False)
    masks = [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert masks == [0, 0]


def test_what_c_libraries_keep_for_themselves(init: str) -> None:
    """Whom glibc's posix_spawn has launched ignores 32 and 33: that isn't handed on either."""

    def ignored(*before: str) -> int:
        done = subprocess.run(
            [*before, "grep", "^SigIgn", "/proc/self/status"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            close_fds=False,  # posix_spawn, with every Python
        )
        return int(done.stdout.split()[1], 16)

    assert ignored(init) == 0, f"it was {ignored('/usr/bin/env'):x}"


LISTEN = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
print("ready", flush=True)
while (number := signal.sigwait(signal.valid_signals())) != signal.SIGTERM:
    print(int(number), flush=True)
"""


@pytest.fixture
def listening(init: str) -> Iterator[subprocess.Popen[str]]:
    """The init, with a program that prints its signals, until SIGTERM."""
    with started(init, sys.executable, "-S", "-c", LISTEN) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def test_every_signal_is_forwarded(listening: subprocess.Popen[str]) -> None:
    """Each signal that can be caught reaches the program, real-time ones too; SIGCHLD is ours."""
    assert listening.stdout is not None
    ours = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCHLD}
    for number in sorted(signal.valid_signals() - ours):
        listening.send_signal(signal.SIGCHLD)
        listening.send_signal(number)
        assert listening.stdout.readline() == f"{int(number)}\n"
    listening.terminate()
    assert listening.wait(timeout=SECONDS) == 0


def test_a_stopped_program_has_not_ended(listening: subprocess.Popen[str]) -> None:
    """Stopping and continuing the program isn't taken for the program's end."""
    assert listening.stdout is not None
    with open(f"/proc/{listening.pid}/task/{listening.pid}/children") as file:
        program = int(file.read())
    os.kill(program, signal.SIGSTOP)
    os.kill(program, signal.SIGCONT)
    assert listening.stdout.readline() == f"{int(signal.SIGCONT)}\n"
    listening.terminate()
    assert listening.wait(timeout=SECONDS) == 0


def test_orphans_are_reaped(init: str) -> None:
    """The init adopts and reaps orphans, and doesn't take an orphan's end for the program's."""
    script = """
        orphan=$(sh -c 'sleep 1000 > /dev/null & echo $!')
        until grep -q "^PPid:.$PPID$" /proc/$orphan/status; do :; done
        kill $orphan
        while [ -d /proc/$orphan ]; do :; done
        echo reaped
        exit 3
    """
    done = run(init, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (3, "reaped\n")


def test_the_program_has_the_terminal(init: str) -> None:
    """On a terminal, the program leads the foreground process group, so keys reach the program
    alone."""
    ours, theirs = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    script = "set -- $(cat /proc/$$/stat); echo $$ $5 $8; exit 3"
    try:
        with started(init, "sh", "-c", script, stdin=theirs, preexec_fn=take_terminal) as process:
            out, _ = process.communicate(timeout=SECONDS)
    finally:
        os.close(ours)
        os.close(theirs)
    pid, group, foreground = out.split()
    assert pid == group == foreground
    assert int(pid) != process.pid
    assert process.returncode == 3
