"""What a record refuses at its making."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.state import (
    ContainerRecord,
    ProcessRecord,
    Result,
    changed,
    dump,
    known_keys,
    process_object,
)
from supervisor.state._codec import loads
from supervisor.testing.strategies import process_objects, process_records
from supervisor.values._errors import InvalidValue
from supervisor.values._status import Cause, ExitStatus, Source, unknown
from tests.state.samples import CONTAINER, PROCESS, RESULT, SAMPLES, container, process
from tests.support.settings import THOROUGH

OWN: dict[str, Any] = {"exec": False, "root_uid": 0, "root_gid": 0}

CONTAINER_TEXTS = (
    "id",
    "root",
    "bundle",
    "runtime",
    "runtime_root",
    "shim",
    "cgroup",
    "boot_id",
)
PROCESS_TEXTS = ("checkpoint", "root", "stdin", "stdout", "stderr", "cwd")


@pytest.mark.parametrize("bad", ["/nul\0", "/\ud800", "/😀\udc80", 5, b"/bytes"])
@pytest.mark.parametrize("name", CONTAINER_TEXTS)
def test_text_of_a_container_is_checked_by_name(name: str, bad: Any) -> None:
    """Text that a path or JSON can't carry is refused when the record is made."""
    with pytest.raises(InvalidValue, match="container id" if name == "id" else name):
        container(**{name: bad})


@pytest.mark.parametrize("bad", ["/nul\0", "/\ud800", "/😀\udc80", 5, b"/bytes"])
@pytest.mark.parametrize("name", PROCESS_TEXTS)
def test_text_of_a_process_is_checked_by_name(name: str, bad: Any) -> None:
    """Text that a path or an argument can't carry is refused when the record is made."""
    with pytest.raises(InvalidValue, match=name):
        process(**{name: bad})


@pytest.mark.parametrize("bad", ["A=nul\0", "A=\ud800", 5, None, b"A=b"])
@pytest.mark.parametrize("name", ["args", "env", "runtime_args"])
def test_each_item_is_checked_by_its_place(name: str, bad: Any) -> None:
    """The second of two items is named."""
    with pytest.raises(InvalidValue, match=rf"{name}\[1\]"):
        process(**{name: ("A=b", bad)})


@pytest.mark.parametrize("name", ["args", "env", "runtime_args"])
@pytest.mark.parametrize("bad", ["text", None, 5, {"A=b": 1}, {"A=b"}])
def test_one_text_is_not_taken_for_many(name: str, bad: Any) -> None:
    """A command line in one string isn't split into letters."""
    with pytest.raises(InvalidValue, match=name):
        process(**{name: bad})


def test_lists_become_tuples() -> None:
    """A list is taken, and can't be changed under the record."""
    args = ["a", "b"]
    record = process(args=args)
    args.append("c")
    assert record.args == ("a", "b")


@pytest.mark.parametrize("bad", ["", "=", "=value", "NAME", "\n"])
def test_the_environment_has_names_and_values(bad: str) -> None:
    """An entry without a name or without ``=`` is refused."""
    with pytest.raises(InvalidValue, match=r"env\[0\]"):
        process(env=(bad,))


@pytest.mark.parametrize("good", ["A=", "A==", "A=b=c", "é= "])
def test_the_environment_may_be_odd(good: str) -> None:
    """Anything with a name before the first ``=`` is taken."""
    assert process(env=(good,)).env == (good,)


def test_a_process_has_arguments() -> None:
    """There must be a program."""
    with pytest.raises(InvalidValue, match="args"):
        process(args=())


@pytest.mark.parametrize("name", ["root", "bundle", "runtime"])
@pytest.mark.parametrize("bad", ["", "relative", "./x", "~"])
def test_paths_of_a_container_are_absolute(name: str, bad: str) -> None:
    """Runtimes and shims change directory: a relative path would mean another file there."""
    with pytest.raises(InvalidValue, match=f"{name} must be an absolute path"):
        container(**{name: bad})


@pytest.mark.parametrize("bad", ["", "relative"])
def test_a_working_directory_is_absolute(bad: str) -> None:
    """Source: the runtime spec, process.cwd."""
    with pytest.raises(InvalidValue, match="cwd must be an absolute path"):
        process(cwd=bad)


@pytest.mark.parametrize(
    "bad", ["", "a", "/", "//", "/a/", "//a", "/a//b", "/.", "/a/../..", "/a/."]
)
def test_a_cgroup_is_below_the_root(bad: str) -> None:
    """A container's cgroup is never the root: every process in the cgroup is killed."""
    with pytest.raises(InvalidValue, match="cgroup"):
        container(cgroup=bad)


@pytest.mark.parametrize("bad", ["", ".", "..", "-a", "a/b", "a b", "a\n", "é", "a" * 129, None, 5])
def test_a_container_has_an_id(bad: Any) -> None:
    """The id is a directory's name and an argument of the runtime."""
    with pytest.raises(InvalidValue, match="container id"):
        container(id=bad)


BAD: dict[str, tuple[Any, ...]] = {
    "timeout_ns": (0, -1, 2**63, 1.5, "5", True, None),
    "created_ns": (-1, 2**63, 1.5, "5", True, None),
    "version": (0, 2, "1", True),
    "no_pivot_root": (0, 1, None, "no"),
    "leash": (0, 1, None, "no"),
    "intent": ("stop", 1, False),
    "stop_signal": (0, 65, "SIGTERM", True, 1.5),
    "stop_grace_ns": (-1, 2**63, 1.5, "5", True),
    "labels": (
        None,
        [],
        {"a": 1},
        {1: "a"},
        {"a": None},
        {"a": "\0"},
        {"\0": "a"},
        {"\ud800": "a"},
    ),
    "restart": ([], "no", {"a": float("nan")}, {1: 2}, {"a": {1, 2}}),
    "extra": (None, [], {"a": float("inf")}, {1: 2}, {"a": b"b"}),
}


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name in BAD for bad in BAD[name]])
def test_the_rest_of_a_container_is_checked_by_name(name: str, bad: Any) -> None:
    """Every field refuses what the type doesn't admit, also bools for integers."""
    with pytest.raises(InvalidValue, match=name):
        container(**{name: bad})


@pytest.mark.parametrize("name", ["root_uid", "root_gid"])
@pytest.mark.parametrize("bad", [-1, 2**32 - 1, 1.0, True, "0", None])
def test_owners_are_ids(name: str, bad: Any) -> None:
    """The id 2**32 - 1 means *none* to the kernel."""
    with pytest.raises(InvalidValue, match=name):
        process(**{name: bad})


def test_a_changed_record_checks_what_changed() -> None:
    """A value is converted and checked as when a record is made; the others aren't looked at."""
    again = changed(PROCESS, args=["true"], cwd="/srv")
    assert again == attrs.evolve(PROCESS, args=("true",), cwd="/srv")
    assert again.args == ("true",) and again.env is PROCESS.env
    assert PROCESS.cwd == "/tmp"
    for name, bad in (("args", ()), ("cwd", "relative"), ("extra", {"args": []}), ("exec", None)):
        with pytest.raises(InvalidValue, match=name):
            changed(PROCESS, **{name: bad})


@pytest.mark.parametrize("record", [CONTAINER, PROCESS, RESULT], ids=lambda r: type(r).__name__)
def test_extra_can_not_hold_a_known_key(record: Any) -> None:
    """A key has one place: otherwise the file would have two values for the key."""
    for key in known_keys(type(record)):
        with pytest.raises(InvalidValue, match=f"extra holds '{key}'"):
            attrs.evolve(record, extra={key: 1})


def test_extra_is_a_copy() -> None:
    """A record can't be changed from outside."""
    inner = {"b": [1]}
    extra = {"a": inner}
    record = container(extra=extra)
    inner["b"].append(2)
    extra["c"] = inner
    assert record.extra == {"a": {"b": [1]}}


class Colour(str, enum.Enum):  # noqa: UP042 - a StrEnum is what str() makes no trouble of
    RED = "red"


class Mask(enum.IntEnum):
    ONE = 1


def test_extra_is_made_of_plain_values() -> None:
    """Subclasses of JSON's types, mappings and tuples become what a load would give."""
    value: Mapping[str, Any] = MappingProxyType({"a": (Colour.RED, Mask.ONE)})
    record = container(extra={"later": value})
    assert repr(record.extra) == "{'later': {'a': ['red', 1]}}"
    assert loads(ContainerRecord, dump(record), path="-") == record


@pytest.mark.parametrize(
    "bad",
    [
        2**2048,
        -(2**2048),
        float("nan"),
        float("-inf"),
        "\ud800",
        {"\ud83d": 1},
        object(),
        b"",
        {1},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_extra_holds_json_only(bad: Any) -> None:
    """A value that wouldn't come back equal from JSON is refused, with the place."""
    with pytest.raises(InvalidValue, match=r"extra\.later\[1\]"):
        container(extra={"later": [0, bad]})


@pytest.mark.parametrize("record", [CONTAINER, RESULT], ids=lambda r: type(r).__name__)
def test_a_nul_in_an_unknown_key_is_json(record: Any) -> None:
    """A NUL in an unknown key survives: no runtime gets the key."""
    changed = attrs.evolve(record, extra={"later\0": ["\0"]})
    assert loads(type(record), dump(changed), path="-") == changed


def test_nesting_has_a_bound() -> None:
    """A value that refers to itself is refused as too deep."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidValue, match="deeper than"):
        container(extra={"later": endless})


# ---- the process object ----------------------------------------------------------


@THOROUGH
@given(process=process_objects())
def test_a_process_object_comes_back(process: dict[str, Any]) -> None:
    """The runtime reads exactly the process object that the record was made of."""
    whole = {"terminal": False, "env": [], **process}
    assert process_object(ProcessRecord.from_process(process, **OWN)) == whole


@THOROUGH
@given(record=process_records())
def test_a_process_object_makes_the_same_record(record: ProcessRecord) -> None:
    """An exec that starts from init's process object loses none of the object's fields."""
    again = ProcessRecord.from_process(
        process_object(record),
        exec=record.exec,
        root_uid=record.root_uid,
        root_gid=record.root_gid,
        checkpoint=record.checkpoint,
        no_pivot_root=record.no_pivot_root,
        init_tells=record.init_tells,
        runtime_args=record.runtime_args,
        root=record.root,
        stdin=record.stdin,
        stdout=record.stdout,
        stderr=record.stderr,
    )
    assert again == record


def test_a_process_object_holds_none_of_our_keys() -> None:
    """A process object has none of our own keys; unknown keys stay, and may be a newer spec's."""
    whole = process_object(PROCESS)
    ours = known_keys(ProcessRecord) - {"terminal", "args", "env", "cwd"}
    assert not ours & whole.keys()
    assert whole["later"] == {"key": [1, 2]}


def test_a_process_object_is_a_copy() -> None:
    """The caller of an exec may change the process object that the exec starts from."""
    process_object(PROCESS)["user"]["uid"] = 0
    process_object(PROCESS)["args"].append("x")
    assert process_object(PROCESS)["user"]["uid"] == 1000
    assert process_object(PROCESS)["args"] == list(PROCESS.args)


@pytest.mark.parametrize("process", [{}, {"args": []}, {"args": None}, {"args": "sh"}, {"env": []}])
def test_a_process_object_needs_arguments(process: dict[str, Any]) -> None:
    """No program, no process."""
    with pytest.raises(InvalidValue, match="args"):
        ProcessRecord.from_process(process, **OWN)


def test_our_keys_in_a_process_object_are_refused() -> None:
    """A file of ours isn't taken for a process object."""
    with pytest.raises(InvalidValue, match="extra holds 'rootUID'"):
        ProcessRecord.from_process({"args": ["sh"], "rootUID": 5}, **OWN)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("Args", "args"),
        ("ARGS", "args"),
        ("argſ", "args"),
        ("nonewprivileges", "noNewPrivileges"),
        ("User", "user"),
        ("CWD", "cwd"),
    ],
)
def test_a_key_that_a_runtime_takes_for_another_is_refused(key: str, meant: str) -> None:
    """Go's JSON matches keys without regard to case: runc would run ``Args``, crun ``args``."""
    with pytest.raises(InvalidValue, match=f"may take for '{meant}'"):
        process(extra={key: ["rm"]})


@pytest.mark.parametrize(
    "value",
    [
        {"apparmorProfile": "a\0b"},
        {"user": {"username": "a\0"}},
        {"rlimits": [{"\0": 1}]},
    ],
)
def test_a_nul_in_what_the_runtime_reads_is_refused(value: dict[str, Any]) -> None:
    """A NUL in text for the runtime is refused: crun would read only the text before the NUL."""
    with pytest.raises(InvalidValue, match="NUL"):
        process(extra=value)


# ---- results ---------------------------------------------------------------------


def _exited(**changes: Any) -> ExitStatus:
    status = {"cause": Cause.EXITED, "source": Source.SHIM, "code": 0}
    return ExitStatus(**{**status, **changes})


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (None, "status"),
        (0, "status"),
        (unknown("nul\0"), "why"),
        (unknown("\udc80"), "why"),
        (unknown("why", at_ns=-1), "at_ns"),
        (unknown("why", at_ns=2**63), "at_ns"),
        (_exited(at_ns=1.5), "at_ns"),
        (_exited(code=True), "code"),
        (_exited(code=1.0), "code"),
        (_exited(core_dumped=0), "core_dumped"),
        (_exited(oom_killed=None), "oom_killed"),
        (_exited(source="shim"), "source"),
    ],
)
def test_a_result_refuses_a_status_that_would_not_come_back(status: Any, name: str) -> None:
    """Whatever an ExitStatus lets through, a result is either written faithfully or refused."""
    with pytest.raises(InvalidValue, match=name):
        Result(status=status)


@THOROUGH
@given(data=st.data())
def test_records_are_frozen(data: st.DataObject) -> None:
    """A record is a value: no field is set after the making."""
    record = data.draw(st.sampled_from(SAMPLES))
    name = data.draw(st.sampled_from([field.name for field in attrs.fields(type(record))]))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(record, name, None)
