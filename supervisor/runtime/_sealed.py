"""Sealed copies of the runtime's program in memory, which save the runtime a copy at each call.

A program in a container could overwrite the runtime's file through ``/proc/PID/exe``
(CVE-2019-5736). So crun and runc never run a container from that file: crun copies the file and
starts again, at every call. Started from a copy that is sealed already, crun skips this, with the
same protection. runc would skip this too, but gains nothing: runc's 9 MB start more slowly from
memory that no file backs, and lose as much time as the skipped copy saves.

Source: man 2 memfd_create, F_ADD_SEALS in man 2 fcntl; ``cloned_binary.c`` in both runtimes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

import attrs

from ..system import Descriptor, close_in_children

_RUNTIMES = ("crun",)  # others may need their own file
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10  # Linux 6.3
_ELF = b"\x7fELF"
_CHUNK_BYTES = 1 << 30


@attrs.frozen
class _Copy:
    identity: tuple[int, ...]
    held: Descriptor | None


class SealedPrograms:
    """The copies for one supervisor's calls, each made when a call first needs the copy.

    There are no copies for ordinary users or under SELinux, where a program's permissions depend
    on the program's file.
    """

    def __init__(self) -> None:
        self._copies: dict[str, _Copy] = {}
        self._allowed = os.geteuid() == 0 and not os.path.exists("/sys/fs/selinux/enforce")

    def open(self, path: str) -> int | None:
        """Return the descriptor of a sealed copy of the program at ``path``.

        The descriptor stays ours, and is closed on exec. A replaced program is copied again.

        Returns:
            None if the file itself should be run.
        """
        if not self._allowed or os.path.basename(path) not in _RUNTIMES:
            return None
        try:
            status = os.stat(path)
        except OSError:
            return None  # the run reports that
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        copy = self._copies.get(path)
        if copy is None or copy.identity != identity:
            self._forget(path)
            try:
                copy = self._copies[path] = _Copy(identity, _seal(path))
            except OSError:
                return None  # there may be a descriptor, or memory, next time
        return None if copy.held is None else copy.held.fd

    def close(self) -> None:
        """Close all copies; programs that run from a copy go on."""
        for path in tuple(self._copies):
            self._forget(path)

    def _forget(self, path: str) -> None:
        copy = self._copies.pop(path, None)
        if copy is not None and copy.held is not None:
            copy.held.close()


def _seal(path: str) -> Descriptor | None:
    with contextlib.ExitStack() as undo:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, source)
        size = os.fstat(source).st_size
        if os.pread(source, len(_ELF), 0) != _ELF:
            return None  # an interpreter couldn't open a script that is closed on exec
        copy = _memory_file(os.path.basename(path))
        undo.callback(os.close, copy)
        while (done := os.fstat(copy).st_size) < size:
            if os.sendfile(copy, source, done, min(size - done, _CHUNK_BYTES)) == 0:
                return None  # the file is being cut just now
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        # Not 0 to 2: the child has its standard streams there.
        return close_in_children(fcntl.fcntl(copy, fcntl.F_DUPFD_CLOEXEC, 3))


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        return os.memfd_create(name, flags)
