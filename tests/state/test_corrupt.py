"""Records as JSON: what is refused, by StateCorrupt and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from supervisor.state import ContainerRecord, ProcessRecord, Result, dump
from supervisor.state._codec import loads
from supervisor.state._models import VERSION
from supervisor.testing.strategies import json_texts, json_values
from tests.state.loading import (
    CLASSES,
    NEEDED,
    PATH,
    Record,
    each_class,
    each_sample,
    loads_or_corrupt,
    reason,
    tree_of,
)
from tests.state.samples import PROCESS, RESULT, SAMPLES
from tests.support.settings import THOROUGH

# ---- what is refused -------------------------------------------------------------


@each_sample
def test_truncated_at_every_byte(sample: Record) -> None:
    """A file cut off anywhere is refused; only the last line end may be missing."""
    data = dump(sample)
    for size in range(len(data)):
        record = loads_or_corrupt(type(sample), data[:size])
        assert (record is None) == (size < len(data) - 1)
    assert loads_or_corrupt(type(sample), data[:-1]) == sample


@each_sample
def test_every_byte_changed(sample: Record) -> None:
    """A file with any one byte changed loads or is refused, never anything else."""
    data = dump(sample)
    for index, byte in enumerate(data):
        for other in (
            0,
            byte ^ 1,
            byte ^ 0x20,
            byte ^ 0x80,
            0xFF,
            ord('"'),
            ord("9"),
            ord("{"),
        ):
            loads_or_corrupt(type(sample), data[:index] + bytes([other]) + data[index + 1 :])


@each_sample
def test_every_byte_missing_or_doubled(sample: Record) -> None:
    """A file with any one byte lost or repeated loads or is refused, never anything else."""
    data = dump(sample)
    for index in range(len(data)):
        loads_or_corrupt(type(sample), data[:index] + data[index + 1 :])
        loads_or_corrupt(type(sample), data[:index] + data[index : index + 1] + data[index:])


@THOROUGH
@given(data=st.binary(max_size=200), cls=st.sampled_from(CLASSES))
@example(data=b"", cls=Result)
@example(data=b"\0" * 100, cls=Result)
@example(data=b"\xef\xbb\xbf{}", cls=Result)
def test_any_bytes_are_refused(data: bytes, cls: type[Any]) -> None:
    """No garbage is taken for a record."""
    assert loads_or_corrupt(cls, data) is None


@THOROUGH
@given(value=json_values(), cls=st.sampled_from(CLASSES))
def test_any_json_loads_or_is_refused(value: Any, cls: type[Any]) -> None:
    """JSON that isn't a record is refused."""
    assert loads_or_corrupt(cls, json.dumps(value).encode()) is None


@THOROUGH
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_any_values_under_known_keys(sample: Record, data: st.DataObject) -> None:
    """Any JSON value in place of any of the right ones loads or is refused; none is coerced."""
    tree = tree_of(sample)
    keys = st.dictionaries(st.sampled_from(sorted(tree)), json_values(), min_size=1, max_size=3)
    tree |= data.draw(keys)
    record = loads_or_corrupt(type(sample), json.dumps(tree).encode())
    if record is not None:
        # As text, since True == 1 == 1.0.
        assert dump(record).decode() == json.dumps(tree, sort_keys=True) + "\n"


WRONG: dict[str, tuple[Any, ...]] = {
    "text": (None, True, 5, 1.5, [], {}, "nul\0", "\ud800"),
    "texts": (
        None,
        True,
        5,
        "text",
        {},
        {"a": "b"},
        [5],
        [None],
        [["a"]],
        ["nul\0"],
        ["\udfff"],
    ),
    "flag": (None, 0, 1, "true", [], {}),
    "integer": (None, True, "5", 5.0, 1e3, [], {}, -1, 2**63, 2**64, 10**500),
    "object": (5, True, "text", [], [["a", "b"]]),
    "enum": (5, True, "no such thing", "STOP", [], {}, ["stop"]),
}
KINDS: dict[str, tuple[str, ...]] = {
    "text": ("id", "root", "bundle", "runtime", "runtimeRoot", "shim", "bootId", "cwd"),
    "texts": ("runtimeArgs", "args", "env"),
    "flag": ("noPivotRoot", "leash", "exec", "terminal", "coreDumped", "oomKilled"),
    "integer": ("timeout", "created", "rootUID", "rootGID", "version"),
    "object": ("labels", "restart"),
    "enum": ("intent", "cause", "source"),
}
PYTHON_NAMES = {
    "bootId": "boot_id",
    "created": "created_ns",
    "rootGID": "root_gid",
    "rootUID": "root_uid",
    "runtimeArgs": "runtime_args",
    "runtimeRoot": "runtime_root",
    "timeout": "timeout_ns",
}
OPTIONAL = (
    "cgroup",
    "checkpoint",
    "root",
    "stdin",
    "stdout",
    "stderr",
    "why",
    "signal",
    "at",
    "code",
)


BAD_OPTIONAL: tuple[Any, ...] = (True, 1.5, [], {}, "nul\0", 2**64, -1)
WRONG_BY_KEY: dict[str, tuple[Any, ...]] = {
    **{key: WRONG[kind] for kind, keys in KINDS.items() for key in keys},
    **dict.fromkeys(OPTIONAL, BAD_OPTIONAL),
}


CASES = [(sample, key) for sample in SAMPLES for key in WRONG_BY_KEY if key in tree_of(sample)]


@pytest.mark.parametrize(("sample", "key"), CASES, ids=lambda case: str(case)[:13])
def test_a_value_of_the_wrong_kind_is_refused_by_name(sample: Record, key: str) -> None:
    """Nothing is coerced: "5" is no integer, True is no integer, a text is no array."""
    tree = tree_of(sample)
    for value in WRONG_BY_KEY[key]:
        if value is None and key in ("restart", "intent"):
            continue
        why = reason(type(sample), {**tree, key: value})
        assert key in why or PYTHON_NAMES.get(key, key) in why
        assert re.search(r"must be|holds a|has either|newer|is \d+ to \d+", why)


@each_class
@pytest.mark.parametrize("text", ["[]", '"text"', "5", "null", "true", "1.5", "[{}]"])
def test_something_else_than_an_object_is_refused(cls: type[Any], text: str) -> None:
    """A record is an object."""
    assert reason(cls, text.encode()).startswith("must be an object, not ")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("place", ['{"later": %s, ', '{"later": [{"a": %s}], ', '{"at": %s, '])
def test_numbers_that_are_none_are_refused(literal: str, place: str) -> None:
    """Python's JSON would take NaN and infinities, and would make one of 1e999."""
    data = json.dumps({"cause": "exited", "source": "shim", "code": 0})
    reason(Result, (place % literal + data[1:]).encode())


@each_class
@pytest.mark.parametrize("digits", [700, 4301, 100_000])
def test_integers_beyond_all_bounds_are_refused(cls: type[Any], digits: int) -> None:
    """Python's limit of digits shows as a refused file, whatever that limit is."""
    sample = next(s for s in SAMPLES if type(s) is cls)
    data = dump(sample).replace(b"{", b'{"zzz": ' + b"9" * digits + b", ", 1)
    reason(cls, data)


@each_class
@pytest.mark.parametrize("bracket", ['{"a":', "[", '{"later":' + "[" * 50, '[{"a":'])
@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_nesting_is_refused(cls: type[Any], bracket: str, depth: int) -> None:
    """No file overflows the stack."""
    reason(cls, (bracket * depth).encode())


@pytest.mark.parametrize(("depth", "fits"), [(99, True), (101, False), (900, False)])
def test_unknown_keys_nest_to_a_bound(depth: int, fits: bool) -> None:
    """A hundred levels load; deeper nesting is refused, well before Python gives up."""
    tree = json.dumps({**tree_of(RESULT), "later": 0})
    data = tree.replace('"later": 0', f'"later": {"[" * depth}{"]" * depth}').encode()
    assert (loads_or_corrupt(Result, data) is not None) == fits


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "utf-8-sig"])
@each_sample
def test_other_encodings_are_refused(sample: Record, encoding: str) -> None:
    """A file is UTF-8; Python's JSON would guess others."""
    reason(type(sample), dump(sample).decode().encode(encoding))


def test_latin_1_is_refused() -> None:
    """A byte that isn't UTF-8 is found and the byte's place named."""
    data = json.dumps({**tree_of(RESULT), "later": "é"}, ensure_ascii=False).encode("latin-1")
    assert reason(Result, data).startswith("not UTF-8 at byte ")


def test_utf_8_beyond_ascii_loads() -> None:
    """A file that was edited by hand may hold UTF-8 instead of escapes."""
    data = json.dumps(tree_of(PROCESS), ensure_ascii=False).encode()
    assert not data.isascii()
    assert loads(ProcessRecord, data, path=PATH) == PROCESS


@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"a\udc80b", r"\udc00\ud800"])
@pytest.mark.parametrize("place", ['"later": "%s"', '"later": {"%s": 1}', '"why": "%s"'])
def test_lone_surrogates_are_refused(escape: str, place: str) -> None:
    """Half a character can't be written as UTF-8."""
    data = '{"cause": "unknown", "source": "inference", "why": "x", ' + place % escape + "}"
    assert "surrogate" in reason(Result, data.replace('"why": "x", "why"', '"why"').encode())


def test_a_pair_of_escaped_surrogates_is_one_character() -> None:
    """How JSON writes what lies beyond 16 bits isn't mistaken for two halves."""
    tree = dump(RESULT).replace(b'"on"', rb'"\ud83d\ude00"')
    assert loads(Result, tree, path=PATH).extra == {"later": "😀"}


@pytest.mark.parametrize("data", [b'{"a": 1, "a": 1}', b'{"later": {"a": 1, "a": 2}}'])
@each_class
def test_a_key_that_stands_twice_is_refused(cls: type[Any], data: bytes) -> None:
    """Readers differ in which of the two they take."""
    sample = next(s for s in SAMPLES if type(s) is cls)
    assert "twice" in reason(cls, data[:-1] + b", " + dump(sample)[1:])


@pytest.mark.parametrize("cls", [ContainerRecord, Result])
@pytest.mark.parametrize("version", [VERSION + 1, 99, 2**70])
def test_a_newer_version_is_said_to_be_newer(cls: type[Any], version: int) -> None:
    """The reason names both versions, whatever else is new in the file."""
    expected = f"version {version} is newer than {VERSION}, the newest known here"
    assert reason(cls, {"version": version}) == expected
    sample = next(s for s in SAMPLES if type(s) is cls)
    assert reason(cls, {**tree_of(sample), "version": version}) == expected


@pytest.mark.parametrize("cls", [ContainerRecord, Result])
@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None, [1]])
def test_a_version_that_is_none_is_refused(cls: type[Any], version: Any) -> None:
    """Only the integers from 1 on are versions."""
    sample = next(s for s in SAMPLES if type(s) is cls)
    assert "version" in reason(cls, {**tree_of(sample), "version": version})


@THOROUGH
@given(secret=json_texts().filter(lambda text: len(text) > 6))
def test_a_reason_does_not_quote_the_environment(secret: str) -> None:
    """Reasons end in logs; an environment holds secrets."""
    assume(secret not in "env: must be an array, not text" + "env[0] has no =, or a NUL")
    for env in ([secret.replace("=", "")], [secret, 5], secret, [f"A={secret}\0"]):
        assert secret not in reason(ProcessRecord, {**tree_of(PROCESS), "env": env})


@each_sample
def test_keys_without_a_default_are_named_when_missing(sample: Record) -> None:
    """For every required key that is missing, the reason says so."""
    for key in NEEDED[type(sample)].split():
        tree = tree_of(sample)
        del tree[key]
        assert reason(type(sample), tree) == f"{key}: missing"


@pytest.mark.parametrize("change", [{"code": 0}, {"signal": None}, {"signal": 65}, {"why": "x"}])
def test_a_status_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    """Keys that are each right must also be right together."""
    assert reason(Result, {**tree_of(RESULT), **change})
