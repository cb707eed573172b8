"""Claims on ids: no two containers share one, and a killed supervisor leaves nothing to free."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import InvalidValue
from supervisor.state import Block, Claim, Ranges, give_back, note, take
from supervisor.state._id_claims import LINK
from tests.support.runtimes import needs_root


@pytest.fixture
def place() -> Iterator[Path]:
    """A place for claims and for containers."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def make(place: Path, name: str, blocks: list[Block]) -> Claim | None:
    """Claim a block as a supervisor does, and make the container's directory."""
    owner = place / name
    claim = take(blocks, str(owner), directory=str(place / "ids"))
    if claim is not None:
        with claim:
            owner.mkdir()
            os.symlink(claim.path, owner / LINK)
    return claim


def remove(place: Path, name: str, *, kindly: bool) -> None:
    owner = place / name
    if kindly:
        give_back(str(owner), directory=str(place / "ids"))
    (owner / LINK).unlink()
    owner.rmdir()


BLOCKS = st.builds(Block, st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))


OFFERS = st.lists(BLOCKS, min_size=1, max_size=6)
LEAVING = st.none() | st.tuples(st.integers(0, 20), st.booleans())


@given(st.lists(st.tuples(OFFERS, LEAVING), max_size=12))
def test_no_two_overlap(steps: list[tuple[list[Block], tuple[int, bool] | None]]) -> None:
    """Present containers share no id, however others left, and a claim is refused only if no
    offered block is free."""
    with tempfile.TemporaryDirectory() as name:
        place, there = Path(name), dict[str, Block]()
        for number, (offer, leaving) in enumerate(steps):
            claim = make(place, f"c{number}", offer)
            if claim is None:
                assert all(any(b.overlaps(t) for t in there.values()) for b in offer)
                continue
            assert claim.block is not None
            assert not any(claim.block.overlaps(other) for other in there.values())
            there[f"c{number}"] = claim.block
            if leaving is not None:
                gone = sorted(there)[leaving[0] % len(there)]
                remove(place, gone, kindly=leaving[1])
                del there[gone]


@pytest.mark.parametrize("kindly", [True, False])
def test_freed_with_its_container(place: Path, kindly: bool) -> None:
    """The only block is free again when the container has gone, cleaned up or not."""
    only = [Block(100, 200, 10)]
    assert make(place, "a", only) is not None
    assert make(place, "b", only) is None
    remove(place, "a", kindly=kindly)
    assert make(place, "b", only) is not None


def test_a_create_that_fails_frees_it(place: Path) -> None:
    """A claim whose container was never made leaves nothing."""
    claim = take([Block(1, 1, 1)], str(place / "a"), directory=str(place / "ids"))
    assert claim is not None
    with claim:
        pass
    assert os.listdir(place / "ids") == []


def test_held_while_the_container_is_made(place: Path) -> None:
    """While the container's directory is made, the claim holds by a lock, which ends with its
    holder."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        take([Block(1, 1, 1)], str(place / "a"), directory=str(place / "ids"))
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    try:
        assert make(place, "b", [Block(1, 1, 1)]) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert make(place, "b", [Block(1, 1, 1)]) is not None


def test_another_container_of_the_same_name_keeps_no_old_claim(place: Path) -> None:
    """A new directory leads to its own ids: the ids of the old directory's claim are free."""
    make(place, "a", [Block(1, 1, 1)])
    remove(place, "a", kindly=False)
    make(place, "a", [Block(2, 2, 1)])
    assert make(place, "b", [Block(1, 1, 1)]) is not None
    assert make(place, "c", [Block(2, 2, 1)]) is None


@needs_root
def test_ids_that_processes_have_are_never_free(place: Path) -> None:
    """A container whose directory was moved away keeps its ids, because its processes have them."""
    block = Block(1_999_000_000, 1_999_000_000, 10)
    make(place, "a", [block])
    remove(place, "a", kindly=False)
    with subprocess.Popen(
        ["unshare", "-U", "sh", "-c", "echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        Path(f"/proc/{process.pid}/uid_map").write_text("0 1999000005 1")
        assert make(place, "b", [block]) is None
        process.stdin.close()
        process.wait()
    assert make(place, "b", [block]) is not None


@needs_root
@pytest.mark.parametrize("harm", ["mode", "owner", "link"])
def test_a_directory_that_others_may_write_proves_nothing(place: Path, harm: str) -> None:
    """Claims are noted only in a directory of ours alone."""
    ids = place / "ids"
    if harm == "link":
        (place / "real").mkdir(mode=0o700)
        ids.symlink_to(place / "real")
    else:
        ids.mkdir(mode=0o700)
        ids.chmod(0o770) if harm == "mode" else os.chown(ids, 1, 1)
    with pytest.raises(InvalidValue, match="isn't a directory of ours alone"):
        make(place, "a", [Block(1, 1, 1)])


# ---- ids that a caller gives ----------------------------------------------------------------


def give(place: Path, name: str, uids: Ranges, gids: Ranges) -> Claim | str:
    """Note ids as a supervisor does, and make the container's directory if they can be had."""
    owner = place / name
    claim = note(uids, gids, str(owner), directory=str(place / "ids"))
    if isinstance(claim, Claim):
        with claim:
            owner.mkdir()
            os.symlink(claim.path, owner / LINK)
    return claim


@pytest.mark.parametrize("kindly", [True, False])
def test_what_a_caller_gave_is_promised_to_nobody(place: Path, kindly: bool) -> None:
    """Ids that a caller gave are in use until the last container with these ids is gone."""
    for name in ("a", "b"):
        assert isinstance(give(place, name, [(100, 10)], [(500, 10)]), Claim)
    assert make(place, "c", [Block(105, 1, 3)]) is None
    assert make(place, "c", [Block(1, 509, 3)]) is None
    assert make(place, "c", [Block(500, 100, 5)]) is not None
    remove(place, "a", kindly=kindly)
    assert make(place, "d", [Block(105, 1, 3)]) is None
    remove(place, "b", kindly=kindly)
    assert make(place, "d", [Block(105, 1, 3)]) is not None


@pytest.mark.parametrize("kindly", [True, False])
@pytest.mark.parametrize(("uids", "gids"), [([(15, 9)], []), ([(1, 1)], [(50, 1), (29, 3)])])
def test_what_was_promised_is_given_to_nobody(
    place: Path, uids: Ranges, gids: Ranges, kindly: bool
) -> None:
    """Ids of an auto container can't be given by a caller: the error names the owner, and nothing
    is noted."""
    make(place, "a", [Block(10, 20, 10)])
    before = os.listdir(place / "ids")
    assert give(place, "b", uids, gids) == str(place / "a")
    assert os.listdir(place / "ids") == before
    remove(place, "a", kindly=kindly)
    assert isinstance(give(place, "b", uids, gids), Claim)
