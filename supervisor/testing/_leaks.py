"""Leak check: a test must leave no processes, descriptors, cgroups, mounts or directories."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final

import attrs
import trio

from .._open import DEFAULT_CGROUP_PARENT
from ..cgroups import Hierarchies
from ..directories import PREFIX
from ..directories import places as temporary_places
from ..values import InvalidValue, check_flag, check_text
from ._arguments import check_callable, check_paths, check_patience
from ._processes import descendants, identified, names_in
from ._subreaper import subreaper

PATIENCE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01


@attrs.frozen
class Leak:
    """One thing that was left behind.

    Attributes:
        kind: ``"process"``, ``"descriptor"``, ``"cgroup"``, ``"mount"`` or ``"directory"``.
        what: a pid with the command line, a descriptor's number with its target, or a path.
    """

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


class LeakError(AssertionError):
    """Something appeared after the check began, and didn't go away in time.

    The check doesn't know what made it: perhaps another thread or program, in the same places.

    Attributes:
        leaks: what was left, a tuple of `Leak`.
    """

    def __init__(self, leaks: Iterable[Leak]) -> None:
        self.leaks: tuple[Leak, ...] = tuple(leaks)
        super().__init__("left behind:\n" + "\n".join(f"  {leak}" for leak in self.leaks))


@attrs.frozen
class _Places:
    """Where the check looks, besides our own descendants and descriptors."""

    cgroup_parent: str | None
    directories: tuple[str, ...]
    mounts_below: tuple[str, ...]
    temporary: bool


_Found = dict[object, Leak]


class LeakCheck:
    """A check that is under way; made by `leak_check`."""

    def __init__(
        self,
        places: _Places,
        *,
        seconds: float,
        subreaper: bool,
        reap: Callable[[], object] | None,
    ) -> None:
        self._places = places
        self._seconds = seconds
        self._subreaper = subreaper
        self._reap = reap
        self._adoption = contextlib.ExitStack()
        self._before: _Found | None = None

    def begin(self) -> None:
        """Note what exists now: none of that counts as a leak."""
        self._before = _look(self._places)

    def left(self) -> list[Leak]:
        """Return what exists now and didn't at the beginning, after one look, without waiting."""
        if self._before is None:
            raise RuntimeError("the leak check hasn't begun: use it as `with leak_check():`")
        if self._reap is not None:
            self._reap()
        found = _look(self._places)
        return [leak for key, leak in found.items() if key not in self._before]

    def __enter__(self) -> LeakCheck:
        self._open()
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            deadline = time.monotonic() + self._seconds
            while (leaks := self.left()) and _worth_waiting(error) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            _report(leaks, error)
        finally:
            self._adoption.close()

    async def __aenter__(self) -> LeakCheck:
        self._open()
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            deadline = trio.current_time() + self._seconds
            while (
                (leaks := self.left()) and _worth_waiting(error) and trio.current_time() < deadline
            ):
                await trio.sleep(_POLL_SECONDS)
            _report(leaks, error)
        finally:
            self._adoption.close()

    def _open(self) -> None:
        if self._subreaper:
            self._adoption.enter_context(subreaper())
        self.begin()


def leak_check(
    *,
    cgroup_parent: str | None = DEFAULT_CGROUP_PARENT,
    directories: Iterable[str | os.PathLike[str]] = (),
    mounts_below: Iterable[str | os.PathLike[str]] = (),
    temporary: bool = True,
    seconds: float = PATIENCE_SECONDS,
    subreaper: bool = False,
    reap: Callable[[], object] | None = None,
) -> LeakCheck:
    """Check that a block leaves nothing behind: ``with leak_check():``.

    In Trio code write ``async with leak_check():``; other tasks then run while the check waits.

    The check compares, before and after: our descendants, zombies too; our open descriptors; the
    cgroups below a parent; the mount points and the names in directories. Things that are still
    going away get ``seconds`` to go.

    Args:
        cgroup_parent: the cgroup below which there must be nothing new: the ``cgroup_parent`` that
            `open_supervisor` gets; None for no check of cgroups. Other programs' containers there
            count too, so give each of several test runs a parent of its own.
        directories: for instance roots: nothing new may be in them, nor in their ``.runtime``.
        mounts_below: directories below which there must be no new mount point. ``directories`` and
            ephemeral roots are always checked for mount points.
        temporary: whether to look at ephemeral roots and temporary bundles too, in all the places
            that docs/state.md names. Other programs' count as well, so give each of several test
            runs a place of its own with the environment variable TRIO_SUPERVISOR_RUNTIME_DIR.
        seconds: how long to wait for leaks to go away. Without leaks there is no wait.
        subreaper: whether we become the subreaper during the block (man 2 prctl): processes that a
            killed program leaves then stay our descendants, and are found.
        reap: called before each look, to reap children that nothing else reaps.

    Raises:
        InvalidValue: an argument can't work.
        LeakError: at the end of the block; names the leaks. If the block raises an exception, that
            exception comes out instead, with a note about the leaks.
    Cancellation: the Cancelled of the block or of the wait comes out, without further waiting.
    """
    roots = check_paths(directories, "directories")
    mounts = (*roots, *check_paths(mounts_below, "mounts_below"))
    if cgroup_parent is not None and not check_text(cgroup_parent, "cgroup_parent").startswith("/"):
        raise InvalidValue(f"cgroup_parent must begin with /, not be {cgroup_parent!r:.100}")
    places = _Places(
        cgroup_parent,
        tuple(os.path.realpath(path) for path in roots),
        tuple(f"{os.path.realpath(path)}/" for path in mounts),
        check_flag(temporary, "temporary"),
    )
    return LeakCheck(
        places,
        seconds=check_patience(seconds, "seconds"),
        subreaper=check_flag(subreaper, "subreaper"),
        reap=None if reap is None else check_callable(reap, "reap"),
    )


def _worth_waiting(error: BaseException | None) -> bool:
    """Whether to wait for leaks to go away; after an interrupted block there is no wait."""
    return error is None or isinstance(error, Exception)


def _report(leaks: list[Leak], error: BaseException | None) -> None:
    if not leaks:
        return
    if error is None:
        raise LeakError(leaks)
    error.add_note(str(LeakError(leaks)))


# ---- looking ------------------------------------------------------------------------------


def _look(places: _Places) -> _Found:
    """Return what exists; the same thing has the same key at each look."""
    return {(leak.kind, *key): leak for key, leak in _everything(places)}


def _everything(places: _Places) -> Iterator[tuple[tuple[object, ...], Leak]]:
    for identity, command in identified(descendants(os.getpid())).items():
        yield identity, Leak("process", f"{identity[0]} ({command})")
    for fd, what in _descriptors().items():
        yield (fd, what), Leak("descriptor", f"{fd} ({what})")
    for path in _cgroups(places.cgroup_parent):
        yield (path,), Leak("cgroup", path)
    temporary = tuple(os.path.join(place, PREFIX) for place in temporary_places())
    for path in _mounts((*places.mounts_below, *temporary)):
        yield (path,), Leak("mount", path)
    for path in _directories(places):
        yield (path,), Leak("directory", path)


def _descriptors() -> dict[int, str]:
    """Return our open descriptors, without those of temporary directories.

    A temporary directory that stays is a leak by itself.
    """
    found = {}
    ours = tuple(os.path.join(place, PREFIX) for place in temporary_places())
    for name in names_in("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the descriptor that the listing used
            continue
        if not any(_is_entry(target, prefix) for prefix in ours):
            found[int(name)] = target
    return found


def _is_entry(path: str, prefix: str) -> bool:
    """Whether ``prefix`` begins the path, and no further ``/`` follows."""
    return path.startswith(prefix) and "/" not in path[len(prefix) :]


def _cgroups(parent: str | None) -> Iterator[str]:
    if parent is None:
        return
    for top in Hierarchies.discover().remains(parent):
        for path, names, _ in os.walk(top):
            yield from (os.path.join(path, name) for name in names)


def _mounts(below: tuple[str, ...]) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return [point for point in points if point.startswith(below)]


def _directories(places: _Places) -> Iterator[str]:
    if places.temporary:
        for place in temporary_places():
            yield from (f"{place}/{name}" for name in names_in(place) if name.startswith(PREFIX))
    for place in places.directories:
        yield from (f"{place}/{name}" for name in names_in(place) if name != ".runtime")
        yield from (f"{place}/.runtime/{name}" for name in names_in(f"{place}/.runtime"))
