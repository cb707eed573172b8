"""Loading a bundle: what is wrong is said exactly, and nothing else ever comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.bundle import Bundle
from supervisor.testing.strategies import json_values
from supervisor.values._errors import BundleInvalid
from tests.support.bundle_configs import (
    Place,
    full,
    minimal,
    name,
    places,
    replaced,
    value_at,
    without,
)
from tests.support.bundle_making import load_error, write
from tests.support.bundle_settings import BRIEF

SAMPLES: tuple[Any, ...] = (
    None,
    True,
    -(2**70),
    5,
    1.5,
    "text",
    "",
    [],
    [{}],
    {},
    {"k": None},
)

REQUIRED = {
    "ociVersion",
    "process",
    "process.args",
    "process.cwd",
    "process.rlimits[0].type",
    "process.rlimits[0].soft",
    "process.rlimits[0].hard",
    "root",
    "root.path",
    "mounts[0].destination",
    "linux",
    "linux.devices[0].type",
    "linux.devices[0].path",
    "linux.seccomp.defaultAction",
    "linux.seccomp.syscalls[0].names",
    "linux.seccomp.syscalls[0].action",
    *(f"linux.namespaces[{n}].type" for n in range(3)),
    *(
        f"{owner}.{kind}Mappings[0].{key}"
        for owner in ("linux", "mounts[0]")
        for kind in ("uid", "gid")
        for key in ("containerID", "hostID", "size")
    ),
    *(
        f"hooks.{hook}[0].path"
        for hook in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    ),
}

TABLES: tuple[Place, ...] = (
    ("annotations",),
    ("linux", "sysctl"),
    ("linux", "timeOffsets"),
    ("linux", "resources", "unified"),
    ("linux", "resources", "rdma"),
)
"""Objects whose keys are the user's own."""

NEEDED_BY_ROOT = ("linux.uidMappings", "linux.gidMappings")
"""The format doesn't require these fields, but a user namespace must map root."""


def places_in(section: str) -> list[Place]:
    return [place for place in places(full()) if place[0] == section]


def kind(value: Any) -> str:
    """JSON's kinds of values, with integers apart from other numbers."""
    return type(value).__name__


@pytest.mark.parametrize("make", [minimal, full])
def test_a_valid_config_loads_as_it_is(bundle: Path, make: Any) -> None:
    """A valid config is loaded, and kept to the letter."""
    write(bundle, make())
    loaded = Bundle.load(str(bundle))
    assert loaded.spec == make()
    assert loaded.path == str(bundle)
    assert not loaded.temporary


def test_unknown_fields_are_let_through(bundle: Path) -> None:
    """A field that we don't know is no fault, anywhere."""
    config = full()
    for place in [(), *places(full())]:
        if isinstance(value_at(full(), place), dict) and place not in TABLES:
            value_at(config, place)["x-unknown"] = "text"
    assert load_error(bundle, config) is None


@pytest.mark.parametrize("section", list(full()))
def test_every_missing_field_loads_or_is_named(bundle: Path, section: str) -> None:
    """A config without an optional field loads; a missing required field is named in the error."""
    for place in places_in(section):
        error = load_error(bundle, without(full(), place))
        if name(place) in REQUIRED:
            assert error is not None, place
            assert error.where == name(place)
            assert "missing" in str(error)
        elif name(place) in NEEDED_BY_ROOT:
            assert error is not None, place
            assert "doesn't map" in str(error)
        elif isinstance(place[-1], str):
            assert error is None, place


@pytest.mark.parametrize("section", list(full()))
def test_every_mistyped_field_is_named(bundle: Path, section: str) -> None:
    """With a value of another kind in one known field, the config is refused, naming the field."""
    for place in places_in(section):
        proper = kind(value_at(full(), place))
        for sample in SAMPLES:
            error = load_error(bundle, replaced(full(), place, sample))
            if sample is not None and kind(sample) != proper:
                assert error is not None, (place, sample)
                assert error.where == name(place)


@pytest.mark.parametrize("section", list(full()))
def test_null_stands_for_nothing(bundle: Path, section: str) -> None:
    """Null in an optional field counts as absent, as in the runtimes' own JSON."""
    for place in places_in(section):
        error = load_error(bundle, replaced(full(), place, None))
        needed = name(place) in REQUIRED or name(place) in NEEDED_BY_ROOT
        is_field = isinstance(place[-1], str) and place[:-1] not in TABLES
        assert (error is None) == (is_field and not needed), place


@BRIEF
@given(data=st.data())
def test_any_value_anywhere_loads_or_is_refused(bundle: Path, data: st.DataObject) -> None:
    """Any JSON in any field either loads, or BundleInvalid says why not."""
    place = data.draw(st.sampled_from(list(places(full()))))
    load_error(bundle, replaced(full(), place, data.draw(json_values())))


@BRIEF
@given(json_values())
def test_any_document_loads_or_is_refused(bundle: Path, config: Any) -> None:
    """For any JSON document in the file, BundleInvalid says what is wrong."""
    assert load_error(bundle, config) is not None


@BRIEF
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(bundle: Path, data: bytes) -> None:
    """Whatever bytes stand in the file, nothing but BundleInvalid comes out."""
    (bundle / "config.json").write_bytes(data)
    with pytest.raises(BundleInvalid):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("process", "args"), [], "must not be empty: give the program to run"),
        (
            ("process", "args"),
            ["sh", 5],
            "process.args[1]: must be text, not an integer",
        ),
        (("process", "args"), ["a\0b"], "process.args[0]: holds a NUL"),
        (("process", "args"), ["\ud800"], "process.args[0]: holds a lone surrogate"),
        (
            ("process", "env"),
            ["PATH"],
            "process.env[0]: must be NAME=VALUE, not 'PATH'",
        ),
        (("process", "env"), ["=x"], "process.env[0]: must be NAME=VALUE"),
        (("process", "cwd"), "tmp", "process.cwd: must be an absolute path"),
        (("process", "cwd"), "", "process.cwd: must not be empty"),
        (
            ("process", "user", "uid"),
            -1,
            "process.user.uid: must be from 0 to 4294967294",
        ),
        (
            ("process", "user", "uid"),
            1.0,
            "must be an integer, not a number with a fraction",
        ),
        (("process", "user", "uid"), True, "must be an integer, not true or false"),
        (("process",), [], "process: must be an object, not an array"),
        (("ociVersion",), 1, "ociVersion: must be text"),
        (("root", "path"), "", "root.path: must not be empty"),
        (("mounts", 0, "destination"), None, "mounts[0].destination: is missing"),
        (
            ("linux", "namespaces", 1),
            {"type": "pid"},
            "names the pid namespace a second time",
        ),
        (
            ("linux", "namespaces", 0, "path"),
            "ns",
            "linux.namespaces[0].path: must be an absolute",
        ),
        (("linux", "uidMappings", 0, "containerID"), 5, "doesn't map uid 0"),
        (("linux", "gidMappings", 0, "size"), 0, "doesn't map gid 0"),
        (
            ("hooks", "poststop", 0, "path"),
            "",
            "hooks.poststop[0].path: must not be empty",
        ),
        (("annotations", "org.example"), 5, "annotations.org.example: must be text"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    bundle: Path, place: Place, value: Any, said: str
) -> None:
    """The error names the file, the place inside, and the expected value."""
    error = load_error(bundle, replaced(full(), place, value))
    assert error is not None
    assert said in str(error)
    assert str(error).startswith(f"{bundle / 'config.json'}: ")


def test_a_lone_surrogate_in_an_unknown_field_is_refused(bundle: Path) -> None:
    """Text that isn't UTF-8 is refused in every place: a runtime would replace the text."""
    error = load_error(bundle, {**minimal(), "x": {"\udfff": 1}})
    assert error is not None
    assert error.where == "a key of x"
