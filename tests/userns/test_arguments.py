"""``userns=``: the possible values, and the meaning for root and for ordinary users."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor import Bundle, BundleInvalid, IdMap, InvalidValue, UserNamespace
from supervisor.bundle import content_of
from supervisor.userns import _choice
from supervisor.userns._choice import ANNOTATION

MAPS = [(0, 100000, 65536)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def files(monkeypatch: pytest.MonkeyPatch, **lines: list[str]) -> None:
    """Show other files than the machine's."""
    whole = {"uid_map": ["0 0 4294967295"], "gid_map": ["0 0 4294967295"], **lines}
    monkeypatch.setattr(_choice, "read_lines", lambda path: whole.get(os.path.basename(path), []))


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    "wanted",
    [
        MAPS,
        [IdMap(*MAPS[0])],
        [{"containerID": 0, "hostID": 100000, "size": 65536}],
        UserNamespace(uids=MAPS, gids=MAPS),
        {"uidMappings": MAPS, "gidMappings": MAPS},
        {"uidMappings": MAPS},
    ],
)
def test_mappings(tree: Path, wanted: Any) -> None:
    """Mappings may be given in podman's and in OCI's words; they stand in config.json."""
    spec = Bundle.from_rootfs(tree, ["sh"], userns=wanted).spec
    entry = {"containerID": 0, "hostID": 100000, "size": 65536}
    assert spec["linux"]["uidMappings"] == spec["linux"]["gidMappings"] == [entry]
    assert spec["annotations"][ANNOTATION] == "mapped"
    assert {"type": "user"} in spec["linux"]["namespaces"]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("host", 'must be "auto", "none" or mappings'),
        (3, "uids must be a sequence"),
        ([], r"uids: no range has 0, the container's root"),
        ([(1, 100000, 5)], r"uids: no range has 0"),
        ([(0, 100000, 0)], r"the size of uids\[0\] must be"),
        ([(0, 4294967290, 6)], r"the size of uids\[0\] must be"),
        ([(0, 4294967295, 1)], r"uids\[0\] must be"),
        ([(0, -1, 1)], r"uids\[0\] must be"),
        ([(0, 1.5, 1)], r"uids\[0\] must be an integer"),
        ([(0, 100000)], r"uids\[0\] must be an IdMap"),
        ([(0, 1000, 5), (4, 2000, 5)], r"uids\[0\] and uids\[1\] overlap in the container"),
        ([(0, 1000, 5), (9, 1004, 5)], r"uids\[0\] and uids\[1\] overlap on the host"),
        ({"gidMappings": MAPS}, "must have uidMappings"),
        ({"uidMappings": MAPS, "gidMappings": [(1, 1, 1)]}, "gids: no range has 0"),
    ],
)
def test_mappings_that_cannot_be(tree: Path, wanted: Any, message: str) -> None:
    """Mappings that can't be a namespace's ids are refused by name, before anything is written."""
    with pytest.raises(InvalidValue, match=message):
        Bundle.from_rootfs(tree, ["sh"], userns=wanted)


@pytest.mark.usefixtures("as_root")
def test_roots_default_is_none(tree: Path) -> None:
    """Root's containers have no user namespace unless they are given one."""
    for spec in (
        Bundle.from_rootfs(tree, ["sh"]).spec,
        Bundle.from_rootfs(tree, ["sh"], userns="none").spec,
        Bundle.from_host(["sh"]).spec,
    ):
        assert {"type": "user"} not in spec["linux"]["namespaces"]
        assert "annotations" not in spec and "uidMappings" not in spec["linux"]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (["root:9:65536", "containers:300000:131072"], 300000),
        (["other:9:65536", "root:500000:65536"], 500000),
        (["containers:0:65536"], 1_879_048_192),
        (["me:1879048192:65536"], 1_879_048_192 + 65536),
        ([], 1_879_048_192),
    ],
)
def test_where_auto_takes_its_ids(
    tree: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], first: int
) -> None:
    """Auto ids come from the user containers, then from our own, then from a free range; never
    0."""
    files(monkeypatch, subuid=lines, subgid=lines)
    bundle = Bundle.from_rootfs(tree, ["sh"], userns="auto")
    assert bundle.spec["linux"]["uidMappings"][0]["hostID"] == first
    assert content_of(bundle).id_blocks is not None and content_of(bundle).id_blocks[0].uid == first


@pytest.mark.usefixtures("as_root")
def test_in_a_user_namespace_of_few_ids(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor in a user namespace can give away only the ids of that namespace."""
    few = ["0 1000 1", "1 100000 65536"]
    files(monkeypatch, uid_map=few, gid_map=few)
    with pytest.raises(InvalidValue, match=r'userns="auto": a container needs 65536 .*0 to 0, 1'):
        Bundle.from_rootfs(tree, ["sh"], userns="auto")
    with pytest.raises(InvalidValue, match=r"not all of the uids on the host exist here"):
        Bundle.from_rootfs(tree, ["sh"], userns=[(0, 100000, 10)])
    more = ["0 1000 1", "1 100000 200000"]
    files(monkeypatch, uid_map=more, gid_map=more, subuid=["root:1:70000"], subgid=["root:1:70000"])
    bundle = Bundle.from_rootfs(tree, ["sh"], userns="auto")
    assert content_of(bundle).id_blocks is not None


def test_ordinary_users_need_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user always gets a namespace, and no ids that aren't the user's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 567)
    with pytest.raises(InvalidValue, match=r'userns="none": you aren\'t root'):
        Bundle.from_rootfs(tree, ["sh"], userns="none")
    with pytest.raises(InvalidValue, match=r"userns: not all of the uids on the host are yours"):
        Bundle.from_rootfs(tree, ["sh"], userns=[(0, 0, 1)])
    auto = Bundle.from_rootfs(tree, ["sh"], userns="auto")
    assert auto.spec == Bundle.from_rootfs(tree, ["sh"]).spec
    assert content_of(auto).id_blocks is None


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["annotations"].update({ANNOTATION: "x"}), "must be 'auto' or 'mapped'"),
        (lambda spec: spec["linux"]["namespaces"].clear(), "without a new user namespace"),
        (
            lambda spec: spec["linux"]["uidMappings"].append(
                {"containerID": 0, "hostID": 5, "size": 1}
            ),
            "overlap",
        ),
    ],
)
def test_an_annotation_that_we_would_have_to_guess(
    tree: Path, tmp_path: Path, change: Any, message: str
) -> None:
    """A loaded config.json whose annotation and ids don't fit together is refused."""
    Bundle.from_rootfs(tree, ["sh"], userns=MAPS, path=tmp_path / "bundle")
    config = tmp_path / "bundle/config.json"
    spec = json.loads(config.read_text())
    change(spec)
    config.write_text(json.dumps(spec))
    with pytest.raises(BundleInvalid, match=message):
        Bundle.load(tmp_path / "bundle")
