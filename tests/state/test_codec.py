"""Records as JSON: what comes back, and from where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.state import ContainerRecord, Intent, ProcessRecord, Result, dump, known_keys, load
from supervisor.state import _codec as codec
from supervisor.state._codec import loads
from supervisor.testing.strategies import json_objects, records
from supervisor.values._errors import InvalidValue, StateCorrupt
from tests.state.loading import NEEDED, PATH, Record, each_sample, loads_or_corrupt, tree_of
from tests.state.samples import CONTAINER, RESULT, SAMPLES
from tests.support.settings import BRIEF, THOROUGH

# ---- what comes back -------------------------------------------------------------


@THOROUGH
@given(record=records())
def test_loading_what_was_dumped_gives_an_equal_object(record: Record) -> None:
    """Whatever the types admit comes back equal."""
    assert loads(type(record), dump(record), path=PATH) == record


@THOROUGH
@given(record=records())
def test_dumping_what_was_loaded_gives_the_same_bytes(record: Record) -> None:
    """A file that is loaded and dumped doesn't change: True stays true, 1.0 stays 1.0."""
    data = dump(record)
    assert dump(loads(type(record), data, path=PATH)) == data


@BRIEF
@given(record=records())
def test_a_dump_is_ascii_lines_of_json(record: Record) -> None:
    """A file is one line of ASCII that any JSON parser reads, with sorted keys."""
    data = dump(record)
    assert data.isascii()
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    keys = list(json.loads(data))
    assert keys == sorted(keys)


@BRIEF
@given(record=records(), shuffle=st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_difference(record: Record, shuffle: Any) -> None:
    """Equal records give equal bytes, in whatever order their mappings were filled."""
    items = list(record.extra.items())
    shuffle.shuffle(items)
    assert dump(attrs.evolve(record, extra=dict(items))) == dump(record)


@THOROUGH
@given(unknown=json_objects(), sample=st.sampled_from(SAMPLES))
def test_unknown_keys_survive(unknown: dict[str, Any], sample: Record) -> None:
    """Keys that this version doesn't know come out of a load and a dump as they went in."""
    unknown = {f"x-{key}": value for key, value in unknown.items()}
    tree = {**tree_of(sample), **unknown}
    record = loads(type(sample), json.dumps(tree).encode(), path=PATH)
    assert record.extra == {**sample.extra, **unknown}
    assert tree_of(record) == tree


@each_sample
@pytest.mark.parametrize("key", ["extra", "status", "timeout_ns", "root_uid", "core_dumped", ""])
def test_a_field_of_ours_that_is_no_key_is_unknown(sample: Record, key: str) -> None:
    """The Python names of fields aren't keys: in a file they are unknown ones, and survive."""
    tree = {**tree_of(sample), key: [1]}
    record = loads(type(sample), json.dumps(tree).encode(), path=PATH)
    assert record.extra[key] == [1]
    assert tree_of(record) == tree


def test_a_change_of_a_loaded_record_keeps_its_unknown_keys() -> None:
    """The supervisor notes an intent in a file of a later version's without losing anything."""
    record = loads(ContainerRecord, dump(CONTAINER), path=PATH)
    changed = loads(ContainerRecord, dump(attrs.evolve(record, intent=Intent.DELETE)), path=PATH)
    assert changed.intent is Intent.DELETE
    assert changed.extra == CONTAINER.extra


@pytest.mark.parametrize("digits", [19, 20, 40, 600])
def test_long_unknown_integers_survive(digits: int) -> None:
    """An integer beyond 64 bits comes back to the last digit, not through a float."""
    number = int("123456789"[: digits % 9 + 1] * digits) % 10**digits
    tree = {**tree_of(RESULT), "later": number}
    record = loads(Result, json.dumps(tree).encode(), path=PATH)
    assert record.extra["later"] == number
    assert tree_of(record) == tree


def test_the_keys_are_those_of_the_design() -> None:
    """The files' keys are a promise: other programs read them."""
    container = "id root bundle runtime runtimeArgs runtimeRoot shim noPivotRoot timeout version"
    container += (
        " created cgroup bootId labels restart intent leash onShimLost stopSignal stopGrace"
        " shimOptions restoreOptions"
    )
    process = "exec rootUID rootGID checkpoint noPivotRoot initTells runtimeArgs root"
    process += " stdin stdout stderr logBytes logFiles terminal args env cwd"
    result = "version oomKills cause source code signal coreDumped oomKilled at why"
    assert known_keys(ContainerRecord) == set(container.split())
    assert known_keys(ProcessRecord) == set(process.split())
    assert known_keys(Result) == set(result.split())


def test_the_values_in_the_files_are_plain() -> None:
    """Nanoseconds are integers, enums their values, tuples arrays."""
    container, process, result = map(tree_of, SAMPLES)
    assert container["timeout"] == 10_000_000_000
    assert container["created"] == 1_700_000_000_123_456_789
    assert container["intent"] == "stop"
    assert container["runtimeArgs"] == ["--systemd-cgroup"]
    assert process["args"] == ["sh", "-c", "echo ünïcode"]
    assert process["user"] == {"uid": 1000, "gid": 1000}
    assert result["cause"] == "signalled"
    assert result["signal"] == 9
    assert result["at"] == 1_700_000_000_123_456_789


@each_sample
def test_keys_with_a_default_may_be_missing(sample: Record) -> None:
    """A file of an earlier version, without what came later, still loads."""
    needed = [*NEEDED[type(sample)].split(), "code", "why"]
    tree = {key: value for key, value in tree_of(sample).items() if key in needed}
    if isinstance(sample, Result):
        tree |= {"cause": "exited", "code": 0}
    assert loads_or_corrupt(type(sample), json.dumps(tree).encode()) is not None


# ---- files -----------------------------------------------------------------------


def test_load_reads_a_file(tmp_path: Path) -> None:
    """A file that was written can be read."""
    path = tmp_path / "state.json"
    path.write_bytes(dump(CONTAINER))
    assert load(ContainerRecord, str(path)) == CONTAINER


def test_a_missing_file_is_just_missing(tmp_path: Path) -> None:
    """No file is not a corrupt one."""
    with pytest.raises(FileNotFoundError):
        load(ContainerRecord, str(tmp_path / "state.json"))


def test_what_is_no_regular_file_is_corrupt(tmp_path: Path) -> None:
    """A directory or a fifo in a file's place neither confuses nor blocks."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(StateCorrupt, match="not a regular file"):
            load(ContainerRecord, str(tmp_path / name))


def test_an_endless_file_is_corrupt(tmp_path: Path) -> None:
    """A file of a size that no record has isn't read into memory."""
    path = tmp_path / "state.json"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(StateCorrupt, match="longer than"):
        load(ContainerRecord, str(path))


def test_a_record_too_long_to_load_is_not_dumped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record that is too long for `load` is refused before the file is written."""
    size = len(dump(CONTAINER))
    monkeypatch.setattr(codec, "MAX_BYTES", size)
    assert len(dump(CONTAINER)) == size
    monkeypatch.setattr(codec, "MAX_BYTES", size - 1)
    with pytest.raises(InvalidValue, match="more than"):
        dump(CONTAINER)
