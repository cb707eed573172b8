"""What a process's standard streams are, from the caller's words to the shim's options."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any

import attrs

from .._errors import InvalidValue, scarcity
from ..state import ProcessLayout
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

NAMES = ("stdin", "stdout", "stderr")
_DIRECTORY_MODE = 0o711
_OWN_OF_CHILDREN = ("fd:0", "fd:1", "fd:2")
_ACL = "system.posix_acl_access"
_NO_ACLS = {errno.ENOTSUP, errno.ENOSYS, errno.EPERM}


@attrs.frozen(kw_only=True)
class Stdio:
    """The three standard streams of a process, as the shim is told.

    Attributes:
        specs: for stdin, stdout and stderr: ``null``, ``fifo:PATH``, ``file:PATH``, ``fd:N``,
            ``log:PATH`` or (stderr) ``stdout``.
        directory: the process directory: the fifos in it are ours to make.
        log: the log's bounds, or None.
        log_path: the log's file.
        terminal: the terminal's initial size, or None.
        given: a descriptor that the process gets as its number 3, or None.
    """

    specs: tuple[str, str, str]
    directory: str
    log: LogFile | None = None
    log_path: str = ""
    terminal: TerminalSize | None = None
    given: int | None = None

    @property
    def options(self) -> list[str]:
        """The shim's options."""
        pairs = zip(NAMES, self.specs, strict=True)
        words = [word for name, spec in pairs for word in (f"--{name}", spec)]
        if self.log is not None:
            words += ["--log", f"{self.log.max_bytes}:{self.log.files}:{self.log_path}"]
        if self.given is not None:
            words += ["--give", str(self.given)]
        return words

    @property
    def fds(self) -> list[int]:
        """The descriptors that the shim must inherit."""
        given = [] if self.given is None else [self.given]
        return [int(spec[3:]) for spec in self.specs if spec.startswith("fd:")] + given

    @property
    def fifos(self) -> list[str]:
        """The paths of the fifos that are ours to make."""
        paths = [spec.partition(":")[2] for spec in self.specs if _is_fifo(spec)]
        return [path for path in paths if os.path.dirname(path) == self.directory]

    @contextlib.contextmanager
    def lifted(self) -> Iterator[Stdio]:
        """Give the same, with descriptors that a child can have for the time of the block.

        Numbers 0 to 2 are the child's own standard streams.

        Raises:
            TooManyFiles: no descriptor was left.
        """
        with contextlib.ExitStack() as lifted:
            first, second, third = (_lifted(spec, lifted) for spec in self.specs)
            yield attrs.evolve(self, specs=(first, second, third))

    def moved(self, new: str) -> Stdio:
        """Return the same with the process directory at ``new``."""
        first, second, third = (_moved(spec, self.directory, new) for spec in self.specs)
        return attrs.evolve(self, specs=(first, second, third), directory=new)


def plan(
    layout: ProcessLayout,
    *,
    stdin: StdioArgument,
    stdout: StdioArgument,
    stderr: StdioArgument,
    terminal: TerminalArgument = False,
) -> Stdio:
    """Return the streams that the caller asked for; nothing is touched yet.

    Args:
        layout: the process directory that fifos will be made in.
        stdin: None or DEVNULL, PIPE, a path that is opened for reading, an open file, a `Fifo`.
        stdout: the same, a path being opened for appending and made if it isn't there; or a
            `LogFile`.
        stderr: the same, or STDOUT.
        terminal: whether all three are a terminal instead, or its size.

    Raises:
        InvalidValue: one of them is something else, or they don't go together.
        NotFifo: a `Fifo` isn't one.
    """
    own = {"stdin": layout.stdin, "stdout": layout.stdout, "stderr": layout.stderr}
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    size = terminal_size(terminal)
    if size is not None and any(value is not None for value in asked.values()):
        raise InvalidValue("a terminal is stdin, stdout and stderr: they must be None")
    first, second, third = (_spec(name, asked[name], own[name]) for name in NAMES)
    return Stdio(
        specs=(first, second, third),
        directory=layout.path,
        log=_log(asked),
        log_path=layout.output_log(),
        terminal=size,
    )


def prepare(stdio: Stdio, *, uid: int, gid: int) -> None:
    """Make the fifos and files, owned by the container's root.

    Raises:
        DiskFull, TooManyFiles, OSError: one of them can't be made or opened.
    """
    try:
        for path in stdio.fifos:
            os.mkfifo(path, 0o600)
            _own(path, uid, gid)
            _stay_admitted(path)
        if stdio.log is not None:
            os.makedirs(os.path.dirname(stdio.log_path), _DIRECTORY_MODE, exist_ok=True)
        for name, spec in zip(NAMES, stdio.specs, strict=True):
            if spec.startswith("file:"):
                _try_file(spec[5:], reading=name == "stdin", uid=uid, gid=gid)
    except OSError as error:
        raise scarcity(error) from error


def _spec(name: str, value: StdioArgument, fifo: str) -> str:
    if value is None or value is DEVNULL or value == DEVNULL:
        return "null"
    if value == PIPE:
        return f"fifo:{fifo}"
    if value == STDOUT:
        if name != "stderr":
            raise InvalidValue(f"{name} can't be STDOUT: only stderr can")
        return "stdout"
    if isinstance(value, LogFile):
        if name == "stdin":
            raise InvalidValue("stdin can't be a log")
        return f"log:{fifo}"
    if isinstance(value, Fifo):
        value.check()
        return f"fifo:{value.path}"
    if isinstance(value, str | os.PathLike):
        return f"file:{_path(name, value)}"
    return f"fd:{_descriptor(name, value)}"


def _log(asked: Mapping[str, StdioArgument]) -> LogFile | None:
    logs = [value for value in asked.values() if isinstance(value, LogFile)]
    if any(log != logs[0] for log in logs):
        raise InvalidValue("stdout and stderr go to one log: they can't have different bounds")
    return logs[0] if logs else None


def _is_fifo(spec: str) -> bool:
    return spec.startswith(("fifo:", "log:"))


def _moved(spec: str, old: str, new: str) -> str:
    kind, _, path = spec.partition(":")
    if not _is_fifo(spec) or os.path.dirname(path) != old:
        return spec
    return f"{kind}:{os.path.join(new, os.path.basename(path))}"


def _path(name: str, value: str | os.PathLike[str]) -> str:
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidValue(f"{name}: {path!r} is no path")
    path = os.path.abspath(path)
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
            f"not {value!r}"
        ) from error
    return fd


def _lifted(spec: str, lifted: contextlib.ExitStack) -> str:
    if spec not in _OWN_OF_CHILDREN:
        return spec
    try:
        fd = fcntl.fcntl(int(spec[3:]), fcntl.F_DUPFD_CLOEXEC, len(NAMES))
    except OSError as error:
        raise scarcity(error) from error
    lifted.callback(os.close, fd)
    return f"fd:{fd}"


def _try_file(path: str, *, reading: bool, uid: int, gid: int) -> None:
    if reading:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(fd)
    _own(path, uid, gid)


def _stay_admitted(path: str) -> None:
    """Let us open a fifo also when the runtime has given it to the container's user.

    Root is let in anyway. A file system without ACLs may still do, for the container's root.

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
