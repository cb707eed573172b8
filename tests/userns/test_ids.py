"""Ids in user namespaces, against a slow and obvious model."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.userns import container_root_ids
from supervisor.userns._ids import MAX_ID, IdMap, host_id, parse_id
from supervisor.values._errors import BundleInvalid
from tests.support.bundle_settings import THOROUGH

small_maps = st.builds(IdMap, st.integers(0, 8), st.integers(0, 50), st.integers(0, 6))
map_lists = st.lists(small_maps, max_size=4)


def expanded(maps: list[IdMap]) -> dict[int, int]:
    """The model: every single id of every range; of several ranges the first one counts."""
    table: dict[int, int] = {}
    for entry in maps:
        for offset in range(entry.size):
            table.setdefault(entry.container_id + offset, entry.host_id + offset)
    return table


def spec_with(uids: list[IdMap], gids: list[IdMap], **user: str) -> dict[str, Any]:
    return {
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "user", **user}],
            "uidMappings": [entry.to_json() for entry in uids],
            "gidMappings": [entry.to_json() for entry in gids],
        }
    }


@THOROUGH
@given(map_lists, st.integers(0, 16))
def test_host_id_is_the_models(maps: list[IdMap], inside: int) -> None:
    """An id inside maps to the host's id that the expanded ranges say, or to none."""
    assert host_id(maps, inside) == expanded(maps).get(inside)


@THOROUGH
@given(map_lists, map_lists)
def test_container_root_is_the_models(uids: list[IdMap], gids: list[IdMap]) -> None:
    """Root's ids are those that the expanded ranges say; an unmapped root is an error."""
    expected = expanded(uids).get(0), expanded(gids).get(0)
    spec = spec_with(uids, gids)
    if None in expected:
        with pytest.raises(BundleInvalid) as caught:
            container_root_ids(spec)
        kind = "uid" if expected[0] is None else "gid"
        assert caught.value.where == f"linux.{kind}Mappings"
        assert f"doesn't map {kind} 0" in str(caught.value)
    else:
        assert container_root_ids(spec) == expected


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"linux": None},
        {"linux": {"namespaces": None}},
        {"linux": {"namespaces": [{"type": "pid"}]}},
        {"linux": {"uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}]}},
    ],
)
def test_no_user_namespace_means_the_hosts_root(spec: dict[str, Any]) -> None:
    """Without a user namespace, root is root, whatever mappings stand there."""
    assert container_root_ids(spec) == (0, 0)


@pytest.mark.parametrize("mappings", [None, []])
def test_a_user_namespace_without_mappings_is_never_silently_root(
    mappings: Any,
) -> None:
    """A user namespace without mappings is an error."""
    spec = spec_with([], [])
    spec["linux"]["uidMappings"] = mappings
    with pytest.raises(BundleInvalid, match="uid 0"):
        container_root_ids(spec)


def test_a_joined_namespace_is_asked_for_its_mappings() -> None:
    """For a user namespace that is joined by a process' path, that process' maps count."""
    with open("/proc/self/uid_map") as uids, open("/proc/self/gid_map") as gids:
        maps = [[IdMap(*map(int, line.split())) for line in file] for file in (uids, gids)]
    expected = expanded_root(maps[0]), expanded_root(maps[1])
    spec = spec_with([], [], path=f"/proc/{os.getpid()}/ns/user")
    assert container_root_ids(spec) == expected


def expanded_root(maps: list[IdMap]) -> int:
    """The model for one id, as a whole namespace is too long to expand."""
    return next(entry.host_id for entry in maps if entry.container_id == 0)


def test_a_joined_namespace_with_mappings_uses_them() -> None:
    """Mappings that are written down beside a path count."""
    root = [IdMap(0, 1000, 1)]
    assert container_root_ids(spec_with(root, root, path="/run/ns/user")) == (
        1000,
        1000,
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/run/ns/user", "can't be told from its path"),
        ("/proc/0/ns/user", "can't be read"),
        ("/proc/1/ns/user/../user", "can't be told from its path"),
    ],
)
def test_a_joined_namespace_that_cannot_be_asked_is_an_error(path: str, said: str) -> None:
    """A joined user namespace whose mappings can't be learnt is an error that says so."""
    with pytest.raises(BundleInvalid, match=said):
        container_root_ids(spec_with([], [], path=path))


@THOROUGH
@given(st.integers(0, 2**33))
def test_ids_are_read_back(value: int) -> None:
    """A number that can be an id is read as that id."""
    assert parse_id(str(value)) == (value if value <= MAX_ID else None)


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "٣", "1.0", "0x1", "9" * 5000])
def test_what_is_no_id(text: str) -> None:
    """Text that isn't a plain number of at most ten digits is no id."""
    assert parse_id(text) is None
