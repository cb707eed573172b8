"""Why a program can't be run in a container: found by the kernel's own checks, done again.

Source: man 2 execve, man 5 elf; the kernel's fs/exec.c, fs/binfmt_elf.c and fs/binfmt_script.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import attrs

from ..spec import behind_init
from ._tree import Tree, Unknown

_HEAD_BYTES: Final = 256  # the kernel's BINPRM_BUF_SIZE
_INTERPRETER: Final = 3  # PT_INTERP
_MAX_TABLE_BYTES: Final = 65536
_MAX_PATH_BYTES: Final = 4096
_MAX_INTERPRETERS: Final = 5
_BINFMT: Final = "/proc/sys/fs/binfmt_misc"
_MACHINES: Final = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S/390", 40: "ARM"}
_MORE_MACHINES: Final = {62: "x86-64", 183: "AArch64", 243: "RISC-V", 258: "LoongArch"}
_ALSO: Final = {62: (3,), 183: (40,), 21: (20,)}  # other machines whose programs run there


@attrs.frozen
class Obstacle:
    """Why a program can't be run.

    Attributes:
        what: ``"program"`` or ``"cwd"``.
        errno: the system's error number.
        name: the program or directory, as the caller named it.
        why: the reason, for people: the end of a sentence.
    """

    what: str
    errno: int
    name: str
    why: str

    def __str__(self) -> str:
        if self.what == "cwd":
            return f"cannot enter the working directory {self.name}: {self.why}"
        return f"the program {self.name} can't be run: {self.why}"


class _Blocked(Exception):
    def __init__(self, number: int, why: str = "") -> None:
        super().__init__(number, why)
        self.errno = number
        self.why = why or os.strerror(number)


def obstacle(tree: Tree, process: Mapping[str, Any], *, mapped: bool) -> Obstacle | None:
    """Return why a process object can't be run, as far as a look shows; None if no reason is seen.

    Args:
        tree: the container's files.
        process: the OCI process object to run. Behind our own init, the program is checked.
        mapped: whether the files have other ids inside: then permissions aren't checked.

    Raises:
        OSError: the machine can't look now.
    """
    args = behind_init(process["args"]) or process["args"]
    cwd = process.get("cwd") or "/"
    looker = _Looker(tree, process, None if mapped else _Caller.of(process))
    try:
        try:
            looker.enter(cwd)
        except _Blocked as error:
            return Obstacle("cwd", error.errno, cwd, error.why)
        try:
            looker.program(args[0], cwd)
        except _Blocked as error:
            return Obstacle("program", error.errno, args[0], error.why)
    except Unknown:
        pass
    return None


@attrs.frozen
class _Caller:
    """The user whose permissions count."""

    uid: int
    gids: frozenset[int]
    overrides: bool

    @classmethod
    def of(cls, process: Mapping[str, Any]) -> _Caller:
        user = process.get("user") or {}
        effective = (process.get("capabilities") or {}).get("effective") or ()
        return cls(
            user.get("uid") or 0,
            frozenset([user.get("gid") or 0, *(user.get("additionalGids") or ())]),
            "CAP_DAC_OVERRIDE" in effective,
        )

    def may_execute(self, fd: int) -> bool:
        """Whether the user may execute a file, or pass a directory, as far as the mode shows."""
        status = os.fstat(fd)
        mode = status.st_mode
        if _has_list(fd):
            return True  # an ACL may allow anything
        if self.overrides:
            return bool(mode & 0o111) or stat.S_ISDIR(mode)
        if status.st_uid == self.uid:
            return bool(mode & stat.S_IXUSR)
        return bool(mode & (stat.S_IXGRP if status.st_gid in self.gids else stat.S_IXOTH))


@attrs.frozen
class _Looker:
    tree: Tree
    process: Mapping[str, Any]
    caller: _Caller | None

    def enter(self, cwd: str) -> None:
        """Check that a directory is there, or would be made."""
        try:
            fd = self.tree.find(cwd)
        except FileNotFoundError:
            if self.tree.is_fixed(cwd):
                raise _Blocked(errno.ENOENT) from None
            return
        except OSError as error:
            raise _blocked(error) from None
        try:
            self._check_directory(fd, cwd)
        finally:
            os.close(fd)

    def program(self, name: str, cwd: str) -> None:
        """Check that a program is there and can be run."""
        if "/" in name:
            self._executable(os.path.join(cwd, name))
            return
        path = self._search_path()
        told = _Blocked(errno.ENOENT, f"{os.strerror(errno.ENOENT)} in PATH ({path or ''})")
        if path is None:
            told = _Blocked(errno.ENOENT, f"{os.strerror(errno.ENOENT)}, and there is no PATH")
        for place in [] if path is None else path.split(":"):
            try:
                self._executable(os.path.join(cwd, place, name))
            except _Blocked as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR) and not _is_of_content(error):
                    continue
                if error.errno != errno.EACCES:
                    raise  # a runtime stops at the first executable one
                told = error
            else:
                return
        raise told

    def _search_path(self) -> str | None:
        found = [e[5:] for e in self.process.get("env") or () if e.startswith("PATH=")]
        return found[-1] if found else None

    def _executable(self, path: str, depth: int = 0) -> None:
        try:
            if self.caller is not None:
                self._pass_through(path)
            fd = self.tree.find(path)
        except OSError as error:
            raise _blocked(error) from None
        try:
            self._check(path, fd)
            head = _head(fd)
            self._check_content(head, fd, depth)
        finally:
            os.close(fd)

    def _pass_through(self, path: str) -> None:
        """Check that the program's user may pass all directories of a path."""
        parts = os.path.normpath(path).split("/")[1:-1]
        for count in range(len(parts) + 1):
            above = "/" + "/".join(parts[:count])
            fd = self.tree.find(above)
            try:
                self._check_directory(fd, above)
            finally:
                os.close(fd)

    def _check_directory(self, fd: int, path: str) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise _Blocked(errno.ENOTDIR)
        if self.caller is not None and not self.caller.may_execute(fd):
            raise _Blocked(errno.EACCES, f"{os.strerror(errno.EACCES)} to pass {path}")

    def _check(self, path: str, fd: int) -> None:
        status = os.fstat(fd)
        denied = os.strerror(errno.EACCES)
        if stat.S_ISDIR(status.st_mode):
            raise _Blocked(errno.EACCES, f"{denied}, this is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise _Blocked(errno.EACCES, f"{denied}, this is no regular file")
        if not status.st_mode & 0o111:
            mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
            raise _Blocked(errno.EACCES, f"{denied}, no user may execute it ({mode})")
        if self.caller is not None and not self.caller.may_execute(fd):
            raise _Blocked(errno.EACCES)
        if self.tree.forbids_programs(path, fd):
            raise _Blocked(errno.EACCES, f"{denied}, the file system is mounted noexec")

    def _check_content(self, head: bytes, fd: int, depth: int) -> None:
        if depth > _MAX_INTERPRETERS:
            raise _Blocked(errno.ELOOP)
        if head.startswith(b"#!"):
            line = head[2:].partition(b"\n")[0].split(maxsplit=1)
            interpreter = line[0] if line else b""
        elif head.startswith(b"\x7fELF"):
            interpreter = _loader(head, fd)
            if not interpreter:
                return
        else:
            interpreter = b""
        if not interpreter:
            self._refuse("neither a program nor a script that begins with #!")
        name = os.fsdecode(interpreter)
        try:
            self._executable(name if name.startswith("/") else f"/{name}", depth + 1)
        except _Blocked as error:
            raise _OfContent(error.errno, f"the interpreter {name}: {error.why}") from None

    def _refuse(self, why: str) -> None:
        if not _knows_other_formats():
            raise _Blocked(errno.ENOEXEC, f"{os.strerror(errno.ENOEXEC)}, {why}")
        raise Unknown


class _OfContent(_Blocked):
    """The program is there, but what it needs isn't."""


def _is_of_content(error: _Blocked) -> bool:
    return isinstance(error, _OfContent)


def _has_list(fd: int) -> bool:
    """Whether a file has an access control list besides the mode (acl(5))."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    except OSError:
        return False


def _blocked(error: OSError) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG):
        return _Blocked(error.errno)
    return Unknown()


@contextlib.contextmanager
def _readable(fd: int) -> Iterator[int]:
    """Open a regular file again for reading; raise Unknown if that fails."""
    try:
        file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise Unknown from None
    try:
        yield file
    finally:
        os.close(file)


def _head(fd: int) -> bytes:
    with _readable(fd) as file:
        return os.pread(file, _HEAD_BYTES, 0)


def _loader(head: bytes, fd: int) -> bytes:
    """Return the interpreter that an ELF program names, or nothing."""
    machine = _machine(head)
    ours = _machine(_own_head())
    if machine not in (ours, *_ALSO.get(ours, ())):
        known = {**_MACHINES, **_MORE_MACHINES}.get(machine, f"number {machine}")
        if _knows_other_formats():
            raise Unknown
        raise _Blocked(
            errno.ENOEXEC, f"{os.strerror(errno.ENOEXEC)}, built for another machine ({known})"
        )
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    offset, size, count = struct.unpack_from(
        f"{order}32xQ14xHH" if wide else f"{order}28xI10xHH", head
    )
    entry = struct.Struct(f"{order}I4xQ16xQ" if wide else f"{order}II8xI")
    if size < entry.size or size * count > _MAX_TABLE_BYTES:
        return b""
    with _readable(fd) as file:
        table = os.pread(file, size * count, offset)
        for at in range(0, len(table) - size + 1, size):
            kind, place, length = entry.unpack_from(table, at)
            if kind == _INTERPRETER:
                return os.pread(file, min(length, _MAX_PATH_BYTES), place).rstrip(b"\0")
    return b""


def _machine(head: bytes) -> int:
    if len(head) < 64:
        return -1
    number: int = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
    return number


@cache
def _own_head() -> bytes:
    with open("/proc/self/exe", "rb") as file:
        return file.read(_HEAD_BYTES)


def _knows_other_formats() -> bool:
    """Whether this host can run more formats than programs and scripts (binfmt_misc)."""
    try:
        return any(name not in ("register", "status") for name in os.listdir(_BINFMT))
    except OSError:
        return False
