"""`Stdio`: from the caller's stream arguments to the shim's options and fifos."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any

import attrs

from ..state import ProcessLayout, ProcessRecord
from ..system import PASSABLE, distrust_directory, make_fifo
from ..values import InvalidValue, StateCorrupt, check_path, raise_if_scarce
from ._kinds import (
    DEVNULL,
    PIPE,
    STDOUT,
    Fifo,
    LogFile,
    StdioArgument,
    TerminalArgument,
    TerminalSize,
    terminal_size,
)

_BYTES = "give them to `run` or a pool, or send them through a PIPE"
NAMES = ("stdin", "stdout", "stderr")
_FIFO_MODE = 0o600
_ACL = "system.posix_acl_access"
_UNCONNECTED = (errno.ENOTCONN, errno.EINVAL)  # EINVAL: a read from a unix socket
_NO_ACLS = {errno.ENOTSUP, errno.ENOSYS, errno.EPERM}


@attrs.frozen(kw_only=True)
class Stdio:
    """The three standard streams of a process.

    Attributes:
        specs: where stdin, stdout and stderr come from or go to: ``null``, ``fifo:PATH``,
            ``file:PATH``, ``fd:N``, ``log:PATH`` or (stderr) ``stdout``.
        directory: the process directory; we make the fifos in there.
        log: the log's bounds, or None.
        log_path: the log's newest file.
        log_index: the file of the log's index.
        terminal: the terminal's initial size, or None.
        given: a descriptor that the process gets as number 3, or None.
        theirs: for each stream, a descriptor of the caller's file or fifo, which the shim copies
            from or to; or None.
        null: a descriptor of a null device for containers, or None.
    """

    specs: tuple[str, str, str]
    directory: str
    log: LogFile | None = None
    log_path: str = ""
    log_index: str = ""
    terminal: TerminalSize | None = None
    given: int | None = None
    theirs: tuple[int | None, int | None, int | None] = (None, None, None)
    null: int | None = None

    @property
    def options(self) -> list[str]:
        """The shim's options."""
        words = []
        for name, spec, fd in zip(NAMES, self.specs, self.theirs, strict=True):
            words.append(f"--{name}")
            if fd is None:
                words.append(spec)
            else:
                words.append(f"hold:{fd}" if spec.startswith("fifo:") else f"fd:{fd}")
        if self.null is not None:
            words += ["--null", str(self.null)]
        if self.log is not None:
            words += ["--log", f"{self.log.max_bytes}:{self.log.files}:{self.log_path}"]
            words += ["--log-index", self.log_index]
        if self.given is not None:
            words += ["--give", str(self.given)]
        return words

    @property
    def fds(self) -> list[int]:
        """The descriptors that the shim must inherit."""
        return [fd for fd in (*self.theirs, self.given, self.null) if fd is not None]

    def fifos(self, directory: str) -> list[str]:
        """Return the paths of the fifos that we make: one for each stream except a null device.

        A null device that can't be shared is copied, and needs a fifo, too.

        Args:
            directory: the process directory, which may still have a temporary name.
        """
        return [
            os.path.join(directory, name)
            for name, spec, theirs in zip(NAMES, self.specs, self.theirs, strict=True)
            if theirs is not None or spec not in ("null", "stdout")
        ]

    @property
    def on_record(self) -> dict[str, Any]:
        """The values for a `ProcessRecord`; `recorded` makes a `Stdio` of them again."""
        stdin, stdout, stderr = self.specs
        return {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "log_bytes": None if self.log is None else self.log.max_bytes,
            "log_files": None if self.log is None else self.log.files,
        }

    @property
    def descriptors(self) -> list[str]:
        """The names of the streams that are open files of the caller's program."""
        pairs = zip(NAMES, self.specs, strict=True)
        return [name for name, spec in pairs if spec.startswith("fd:")]

    def is_own(self, spec: str) -> bool:
        """Whether a fifo is in the process directory: ours, not the caller's."""
        return os.path.dirname(spec.partition(":")[2]) == self.directory

    def having(self, theirs: Sequence[int | None], *, null: int | None) -> Stdio:
        """Return these streams with descriptors for the shim."""
        stdin, stdout, stderr = theirs
        if self.theirs == (stdin, stdout, stderr) and self.null == null:
            return self
        return attrs.evolve(self, theirs=(stdin, stdout, stderr), null=null)


def plan(
    layout: ProcessLayout,
    *,
    stdin: StdioArgument,
    stdout: StdioArgument,
    stderr: StdioArgument,
    terminal: TerminalArgument = False,
) -> Stdio:
    """Return the streams that the caller asks for; no file is made or opened yet.

    Args:
        layout: the process directory in which fifos will be made.
        stdin: None or DEVNULL, PIPE, a path that is opened for reading, an open file, a `Fifo`.
        stdout: the same, but a path is opened for appending, and a missing file is made; or a
            `LogFile`.
        stderr: the same, or STDOUT.
        terminal: whether all three are a terminal instead, or the terminal's size.

    Raises:
        InvalidValue: an argument is something else, or the arguments don't go together.
        NotFifo: there is no fifo at the path of a `Fifo`.
    """
    own = {"stdin": layout.stdin, "stdout": layout.stdout, "stderr": layout.stderr}
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    size = terminal_size(terminal)
    if size is not None and any(value is not None for value in asked.values()):
        raise InvalidValue("a terminal is stdin, stdout and stderr: they must be None")
    first, second, third = (_spec(name, asked[name], own[name]) for name in NAMES)
    if third == second and third.startswith(("fd:", "file:")):
        third = "stdout"  # one stream keeps the order of the output; two copies wouldn't
    return Stdio(
        specs=(first, second, third),
        directory=layout.path,
        log=_log(asked),
        log_path=layout.output_log,
        log_index=layout.log_index,
        terminal=size,
    )


def recorded(layout: ProcessLayout, record: ProcessRecord) -> Stdio:
    """Return the streams of a process from the record; no file is opened.

    Raises:
        InvalidValue: the record has an impossible value.
    """
    size = record.extra.get("consoleSize") or {}
    log = None
    if record.log_bytes is not None and record.log_files is not None:
        log = LogFile(max_bytes=record.log_bytes, files=record.log_files)
    return Stdio(
        specs=(record.stdin or "null", record.stdout or "null", record.stderr or "null"),
        directory=layout.path,
        log=log,
        log_path=layout.output_log,
        log_index=layout.log_index,
        terminal=TerminalSize(size.get("width", 80), size.get("height", 24))
        if record.terminal
        else None,
    )


def prepare(stdio: Stdio, layout: ProcessLayout, *, uid: int, gid: int) -> None:
    """Make the fifos of a process, owned by the container's root, and the log's directories.

    ``layout`` may still have a temporary name.

    Raises:
        DiskFull, TooManyFiles, OSError: a fifo or the directory can't be made.
        StateCorrupt: the log's directory isn't a directory, or isn't ours.
    """
    try:
        for path in stdio.fifos(layout.path):
            make_fifo(path, _FIFO_MODE)
            _own(path, uid, gid)
            _stay_admitted(path)
        if stdio.log is not None:
            _make_log_directory(os.path.dirname(layout.output_log))
            _make_log_directory(os.path.dirname(layout.log_index))
    except OSError as error:
        raise_if_scarce(error)
        raise


def _make_log_directory(path: str) -> None:
    """Make a log's directory; an existing one must be ours: a link would lead the output away.

    The container's directory is ours, so no other user can change this after the check.
    """
    try:
        os.mkdir(path)
    except FileExistsError as error:
        why = distrust_directory(path)
        if why is not None:
            raise StateCorrupt(path, f"{why}: no log can be in it") from error
    os.chmod(path, PASSABLE)  # whatever the umask


def check_descriptor(name: str, fd: int) -> None:
    """Check that an open descriptor can be that stream.

    Raises:
        InvalidValue: the descriptor can't be that stream.
        TooManyFiles: no descriptor was left for the check.
    """
    try:
        mode, flags = os.fstat(fd).st_mode, fcntl.fcntl(fd, fcntl.F_GETFL)
    except (OSError, OverflowError) as error:
        raise InvalidValue(f"{name}: descriptor {fd} isn't open") from error
    if stat.S_ISDIR(mode):
        raise InvalidValue(f"{name}: descriptor {fd} is a directory")
    unfit = os.O_WRONLY if name == "stdin" else os.O_RDONLY
    if flags & os.O_PATH or flags & os.O_ACCMODE == unfit:
        verb = "read from" if name == "stdin" else "written to"
        raise InvalidValue(f"{name}: descriptor {fd} can't be {verb}")
    if stat.S_ISSOCK(mode):
        why = _unfit_socket(name, fd)
        if why is not None:
            raise InvalidValue(f"{name}: descriptor {fd} is a socket that {why}")


def _unfit_socket(name: str, fd: int) -> str | None:
    """Return why a socket can't be that stream, if that shows; else None.

    A socket that was connected, and closed by the peer since, can still be read to the end.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as looked_at:
            if looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "listens for connections: give an accepted connection"
            if name != "stdin":
                looked_at.getpeername()
            elif looked_at.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                looked_at.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError as error:
        if error.errno in _UNCONNECTED:
            return "isn't connected"
        raise_if_scarce(error)
    return None


def _spec(name: str, value: StdioArgument, fifo: str) -> str:
    if value is None or _is(value, DEVNULL):
        return "null"
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidValue(f"{name} can't be bytes here: {_BYTES}")
    if _is(value, PIPE):
        return f"fifo:{fifo}"
    if _is(value, STDOUT):
        if name != "stderr":
            raise InvalidValue(f"{name} can't be STDOUT: only stderr can")
        return "stdout"
    if isinstance(value, LogFile):
        if name == "stdin":
            raise InvalidValue("stdin can't be a log")
        return f"log:{fifo}"
    if isinstance(value, Fifo):
        value._check()
        return f"fifo:{value.path}"
    if isinstance(value, str | os.PathLike):
        return f"file:{_path(name, value)}"
    return f"fd:{_descriptor(name, value)}"


def _is(value: object, constant: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == constant


def check_outputs(*, stdout: StdioArgument, stderr: StdioArgument) -> None:
    """Check that these arguments can be outputs, before there is a process.

    Raises: as `plan`.
    """
    asked = {"stdout": stdout, "stderr": stderr}
    for name, value in asked.items():
        _spec(name, value, name)
    _log(asked)


def _log(asked: Mapping[str, StdioArgument]) -> LogFile | None:
    logs = [value for value in asked.values() if isinstance(value, LogFile)]
    if any(log != logs[0] for log in logs):
        raise InvalidValue("stdout and stderr go to one log: they can't have different bounds")
    return logs[0] if logs else None


def _path(name: str, value: str | os.PathLike[str]) -> str:
    path = os.path.abspath(check_path(value, name))
    if os.path.isdir(path):
        raise InvalidValue(f"{name}: {path} is a directory")
    return path


def _descriptor(name: str, value: int | IO[Any]) -> int:
    if isinstance(value, bool):
        raise InvalidValue(f"{name} must not be {value}")
    try:
        fd = value if isinstance(value, int) else value.fileno()
        os.fstat(fd)
    except (AttributeError, ValueError, OSError, OverflowError) as error:
        raise InvalidValue(
            f"{name} must be None, DEVNULL, PIPE, LOG, a path, a Fifo or an open file, "
            f"not {value!r:.200}"
        ) from error
    check_descriptor(name, fd)
    return fd


def _stay_admitted(path: str) -> None:
    """Let us open a fifo even after the runtime has given the fifo to the container's user.

    Root needs no permission. Without ACLs in the file system, a program that runs as the
    container's root may still work.

    Source: acl(5); include/uapi/linux/posix_acl_xattr.h.
    """
    us, nobody = os.geteuid(), 0xFFFFFFFF
    if us == 0:
        return
    # owner rw, we rw, group nothing, at most rw, others nothing
    entries = ((0x01, 6, nobody), (0x02, 6, us), (0x04, 0, nobody), (0x10, 6, nobody))
    acl = b"".join(struct.pack("<HHI", *entry) for entry in (*entries, (0x20, 0, nobody)))
    try:
        os.setxattr(path, _ACL, struct.pack("<I", 2) + acl)
    except OSError as error:
        if error.errno not in _NO_ACLS:
            raise


def _own(path: str, uid: int, gid: int) -> None:
    status = os.stat(path)
    if (status.st_uid, status.st_gid) == (uid, gid) or os.geteuid() != 0:
        return
    os.chown(path, uid, gid)
