"""Files that can't be opened: what the error says, and when the file is not at fault."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.shim import ExitFifo, send_line
from supervisor.state import read_pid
from supervisor.system import Lock, held
from supervisor.system._files import oddity
from supervisor.values._errors import ProcessEnded, StateCorrupt

OPENERS: dict[str, Callable[[str], object]] = {
    "lock": Lock.take,
    "mark": read_pid,
    "exit": ExitFifo,
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def _loop(path: Path) -> None:
    path.symlink_to(path)


KINDS = pytest.mark.parametrize(
    ("make", "what"),
    [
        (_socket, "a socket"),
        (_link, "a symbolic link"),
        (_loop, "a symbolic link"),
        (Path.mkdir, "a directory"),
    ],
)


@KINDS
@pytest.mark.parametrize("opener", OPENERS)
def test_what_it_is(tmp_path: Path, make: Callable[[Path], None], what: str, opener: str) -> None:
    """The error names the file, and says what stands there."""
    path = tmp_path / "file"
    make(path)
    with pytest.raises(StateCorrupt, match=f"{path}: not a .*, but {what}") as caught:
        OPENERS[opener](str(path))
    assert caught.value.path == str(path)


@KINDS
def test_nobody_holds_it(tmp_path: Path, make: Callable[[Path], None], what: str) -> None:
    """A file of the wrong kind counts as unlocked, and no line is written into such a file."""
    path = tmp_path / "file"
    make(path)
    assert not held(str(path))
    with pytest.raises(ProcessEnded, match=f"not a fifo, but {what}"):
        send_line(str(path), "2 9 0")


def test_a_fifo_is_no_lock(tmp_path: Path) -> None:
    """A lock on a fifo proves nothing."""
    path = tmp_path / "file"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert not held(str(path))
    with pytest.raises(StateCorrupt, match="not a regular file, but a fifo"):
        Lock.take(str(path))
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
@pytest.mark.parametrize("opener", OPENERS)
def test_one_that_we_may_not_open(workdir: Path, opener: str) -> None:
    """The error has the file's mode if a umask, or a user by hand, has removed our own
    permissions."""
    path = workdir / "file"
    if opener == "exit":
        os.mkfifo(path)
    else:
        path.touch()
    path.chmod(0)
    child = os.fork()
    if child == 0:
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        try:
            OPENERS[opener](str(path))
        except StateCorrupt as error:
            os._exit(0 if "Permission denied; mode 0000" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EROFS, errno.EMFILE])
def test_not_the_files_fault(tmp_path: Path, number: int) -> None:
    """The machine's faults, and a file that isn't there, stay what they are."""
    error = OSError(number, os.strerror(number), str(tmp_path))
    assert oddity(error, str(tmp_path)) is error


def test_below_a_file(tmp_path: Path) -> None:
    """A file in the place of the directory is corrupt."""
    (tmp_path / "file").touch()
    with pytest.raises(StateCorrupt, match="file/pid: can't be opened"):
        read_pid(str(tmp_path / "file/pid"))
