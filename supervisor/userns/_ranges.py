"""Host ids that containers may have: from /etc/subuid, or a range of our own.

Source: subuid(5), subgid(5), user_namespaces(7); systemd's "Users, Groups, UIDs and GIDs on systemd
Systems" for the ranges that others use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import attrs

from ..state import Block
from ..values import raise_if_scarce
from ._ids import IdMap, parse_id

SIZE = 65536
"""How many ids a container gets: the ids that files and programs may use."""

OWN = (1_879_048_192, 268_304_384)
"""First id and number of a range of our own, 0x70000000 to 0x7ffdffff: above those of users, of
/etc/subuid's and of systemd-nspawn, and below those that some programs take for negative."""

Range = tuple[int, int]
"""First id, number of ids."""


def read_lines(path: str) -> list[str]:
    """Return the lines of a file; none if the file can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError as error:  # without the file, no user has subordinate ids
        raise_if_scarce(error)
        return []


@attrs.frozen
class Blocks(Sequence[Block]):
    """Blocks of ids, counted through ranges of uids and of gids."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    def __len__(self) -> int:
        return min(sum(size // SIZE for _, size in ranges) for ranges in (self.uids, self.gids))

    @overload
    def __getitem__(self, index: int) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...

    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Block(_first(self.uids, index), _first(self.gids, index), SIZE)


def _first(ranges: Iterable[Range], index: int) -> int:
    for first, size in ranges:
        if index < size // SIZE:
            return first + index * SIZE
        index -= size // SIZE
    raise IndexError(index)


def owned(lines: Iterable[str], owners: Iterable[str], *, never: Iterable[int]) -> list[Range]:
    """Return the ranges that ``lines`` of a subuid file give to ``owners``.

    Lines are skipped if they aren't exactly NAME:FIRST:NUMBER, have an id that may never be given
    away (root's, our own), or have ids of an earlier line.
    """
    found: list[Range] = []
    taken = [(id, 1) for id in never]
    for owner, first, size in _entries(lines):
        if owner in owners and not any(_overlap((first, size), other) for other in taken):
            found.append((first, size))
            taken.append((first, size))
    return found


def free(wanted: Range, *, lines: Iterable[str], accounts: Iterable[str]) -> list[Range]:
    """Return the free parts of a range: in no subuid file, and no passwd or group file."""
    taken = [(first, size) for _, first, size in _entries(lines)]
    for line in accounts:
        fields = line.split(":")
        number = parse_id(fields[2]) if len(fields) > 2 else None
        if number is not None:
            taken.append((number, 1))
    return _without(wanted, [other for other in taken if _overlap(wanted, other)])


def clipped(ranges: Iterable[Range], maps: Iterable[IdMap]) -> list[Range]:
    """Return the parts of ranges that exist in a user namespace with these mappings: ours."""
    inside = [(entry.container_id, entry.size) for entry in maps]
    return [
        (start, end - start)
        for first, size in ranges
        for other, number in inside
        if (start := max(first, other)) < (end := min(first + size, other + number))
    ]


def covered(maps: Iterable[IdMap], ranges: Iterable[Range]) -> bool:
    """Whether all outside ids of the mappings are in the ranges."""
    known = list(ranges)
    return all(not _uncovered((entry.host_id, entry.size), known) for entry in maps)


def _uncovered(wanted: Range, ranges: Sequence[Range]) -> list[Range]:
    return _without(wanted, [other for other in ranges if _overlap(wanted, other)])


def _without(whole: Range, parts: Iterable[Range]) -> list[Range]:
    """Return what is left of a range without the parts."""
    left = [whole]
    for first, size in parts:
        left = [piece for one in left for piece in _cut(one, first, first + size)]
    return left


def _cut(one: Range, first: int, end: int) -> list[Range]:
    start, stop = one[0], one[0] + one[1]
    pieces = ((start, min(first, stop)), (max(end, start), stop))
    return [(begin, after - begin) for begin, after in pieces if begin < after]


def _overlap(one: Range, other: Range) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def _entries(lines: Iterable[str]) -> Iterable[tuple[str, int, int]]:
    for line in lines:
        owner, *numbers = line.split(":")
        first, size = map(parse_id, numbers) if len(numbers) == 2 else (None, None)
        if owner and first is not None and size and parse_id(str(first + size - 1)) is not None:
            yield owner, first, size
