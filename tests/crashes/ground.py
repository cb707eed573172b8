"""Where our own plays are: with a subject of our own, on a small disk, with few descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from supervisor.testing._processes import name_of
from supervisor.testing.machine._actor import descriptors
from supervisor.testing.machine._stage import catches_term
from supervisor.testing.stateful import Actor, Program, Setting


@attrs.frozen(kw_only=True)
class Ground(Setting):
    """What all plays share.

    Attributes:
        workdir: the directory for what isn't in ``place``.
        is_disk: whether ``place`` is a small disk.
        subject: the path of the program in the containers: see ``subject.c``.
    """

    workdir: Path
    is_disk: bool
    subject: str

    def command(self, program: Program) -> list[str]:
        """Return the command of a program."""
        return [self.subject, program.kind, str(program.code)]

    def is_ready(self, pid: int) -> bool:
        """Whether a process is the subject, and handles signals already."""
        return name_of(pid) == "subject" and catches_term(pid)

    @property
    def runtime_roots(self) -> Path:
        """Return directories outside the small disk: a full disk is a test of ours, not of the
        runtime."""
        return self.workdir

    def fill(self, pages: int, inodes: int) -> None:
        """Leave so many pages and names for files, and no more."""
        for n in range(os.statvfs(self.place).f_ffree - inodes - 1):
            (self.place / f".ballast-{n}").touch()
        free = os.statvfs(self.place).f_bavail - pages
        with open(self.place / ".ballast", "wb") as file:
            file.write(bytes(4096 * max(0, free)))

    def make_room(self) -> None:
        """Make room again."""
        for path in self.place.glob(".ballast*"):
            path.unlink()


class Starved(Actor):
    """A supervising program that can do things with few descriptors."""

    stdin = None

    async def do_with_descriptors(self, free: int, command: Sequence[Any]) -> Any:
        """Do something with so many descriptors and no more."""
        with only(free):
            return await self.obey(command)


@contextlib.contextmanager
def only(free: int) -> Iterator[None]:
    """Leave us so many descriptors, and no more; gaps between the open ones are filled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(descriptors())
    fillers = []
    while (filler := os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)) < highest:
        fillers.append(filler)
    os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
