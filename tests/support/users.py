"""Ordinary users, with and without subordinate ids, on a machine that may have none."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from supervisor.userns import _rootless

NOBODYS: Final = 54321
"""An id that no user has here."""

_PR_SET_DUMPABLE: Final = 4

_NAME: Final = "supervisor-test"
_ID: Final = 54322

_ADDED: Final = {
    "/etc/passwd": f"{_NAME}:x:{_ID}:{_ID}::/nonexistent:/bin/sh\n",
    "/etc/subuid": f"{_NAME}:2000000:65536\n",
    "/etc/subgid": f"{_NAME}:2000000:65536\n",
}


class NobodyHasThem(Exception):
    """There is no such user, and none can be made."""


@contextlib.contextmanager
def somebody() -> Iterator[pwd.struct_passwd]:
    """Yield a user with subordinate ids: the machine's, or one that only our mounts show.

    Raises:
        NobodyHasThem: there is none, or newuidmap isn't there.
    """
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        raise NobodyHasThem("no newuidmap here: install uidmap")
    user = _found()
    if user is not None:
        yield user
        return
    if os.geteuid() != 0 or not all(map(os.path.exists, _ADDED)) or not own_mounts():
        raise NobodyHasThem("no user here has subordinate ids: useradd makes one")
    _make()
    yield pwd.getpwnam(_NAME)


def _make() -> None:
    """Make the user, for good: another test process may have found the user by now.

    Only our view of the machine shows the user, and ends with us.
    """
    etc = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory() as directory:
        try:
            fcntl.flock(etc, fcntl.LOCK_EX)
            if _found() is not None:
                return
            # In memory, and unmounted here again: the bind mounts keep the file system.
            subprocess.run(["mount", "-t", "tmpfs", "users", directory], check=True)
            for path, line in _ADDED.items():
                copy = Path(directory, Path(path).name)
                copy.write_text("".join(f"{old}\n" for old in _rootless._lines(path)) + line)
                subprocess.run(["mount", "--bind", copy, path], check=True)
            subprocess.run(["umount", directory], check=True)
        finally:
            os.close(etc)


def _found() -> pwd.struct_passwd | None:
    owners = {line.partition(":")[0] for line in _rootless._lines("/etc/subuid")}
    users = (user for user in pwd.getpwall() if user.pw_name in owners and user.pw_uid != 0)
    return next(users, None)


def own_mounts() -> bool:
    """Whether only we see our mounts: scripts/test has a view of its own."""
    with open("/proc/self/mountinfo") as file:
        if any(" shared:" in line for line in file):
            return False
    return os.environ.get("SUPERVISOR_OWN_MOUNTS") == os.readlink("/proc/self/ns/mnt")


def as_user(uid: int, gid: int, program: Callable[[], Awaitable[None]]) -> None:
    """Run an async function in a child that is an ordinary user."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            # No process may look into /proc/PID/fd of a former root, where runtimes find the
            # console.
            assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
            trio.run(program)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0
