"""Ids of the host for containers: from subuid files, read strictly, or a range of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.userns._ids import IdMap
from supervisor.userns._ranges import OWN, SIZE, Blocks, clipped, free, owned

RANGES = st.tuples(st.integers(0, 300), st.integers(1, 60))


def ids(ranges: list[tuple[int, int]]) -> list[int]:
    return [id for first, size in ranges for id in range(first, first + size)]


@given(st.lists(RANGES, max_size=8))
def test_what_is_free_is_all_that_nobody_has(taken: list[tuple[int, int]]) -> None:
    """A range without what others have is exactly that."""
    lines = [f"u{n}:{first}:{size}" for n, (first, size) in enumerate(taken)]
    left = ids(free((50, 150), lines=lines, accounts=["x:x:60:7", "y:x"]))
    assert left == sorted(set(range(50, 200)) - set(ids(taken)) - {60})


@given(st.lists(RANGES, max_size=5), st.lists(RANGES, max_size=3))
def test_clipped_is_what_is_there(
    wanted: list[tuple[int, int]], ours: list[tuple[int, int]]
) -> None:
    """In a user namespace only the namespace's ids can be given away."""
    maps = [IdMap(first, 0, size) for first, size in ours]
    assert set(ids(clipped(wanted, maps))) == set(ids(wanted)) & set(ids(ours))


@pytest.mark.parametrize(
    "line",
    [
        "containers", "containers:1", "containers:x:5", "containers:5:x", "containers:5:0",
        "containers:5:6:7", "containers: 5:6", "containers:5:6 ", "containers:+5:6",
        "containers:-5:6", "containers:٥:6", "containers:4294967295:1", "containers:4294967290:9",
        "containers:0:10", "container:5:6", "containers2:5:6", ":5:6", "#containers:5:6",
        "containers:5:99999999999",
    ],
)  # fmt: skip
def test_lines_that_give_nothing(line: str) -> None:
    """A line that isn't exactly a name, a first id and a number gives nothing, nor does root's."""
    assert owned([line], {"containers"}, never=(0,)) == []


def test_lines_that_repeat_give_once() -> None:
    """Two lines may not give the same id twice: the kernel would refuse, or two be one."""
    lines = ["a:100:50", "a:120:50", "b:300:5", "a:200:50"]
    assert owned(lines, {"a"}, never=(0,)) == [(100, 50), (200, 50)]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_blocks_are_apart(uids: list[int], gids: list[int]) -> None:
    """Blocks are counted through all ranges, of uids and gids alike, and never overlap."""

    def spread(counts: list[int]) -> tuple[tuple[int, int], ...]:
        return tuple((1 + n * 10 * SIZE, count * SIZE + 5) for n, count in enumerate(counts))

    blocks = Blocks(spread(uids), spread(gids))
    assert len(blocks) == min(sum(uids), sum(gids)) == len(list(blocks))
    for n, one in enumerate(blocks):
        assert not any(one.overlaps(other) for other in blocks[:n])


def test_our_own_range_holds_nobodys() -> None:
    """Our range begins above systemd-nspawn's and ends before what some take for negative
    numbers."""
    assert OWN[0] > 0x6FFF_FFFF and OWN[0] + OWN[1] <= 0x7FFE_0000
