"""The wish for a layer: in config.json, in what is derived, in the shim's options."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle, content_of
from supervisor.spec._layer import LAYER_BYTES, WRITABLE
from supervisor.values._errors import BundleInvalid, InvalidValue
from tests.support.bundle_configs import minimal
from tests.support.bundle_making import load_error, mount_at

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="others need a user namespace")


def test_what_is_written(rootfs: Path) -> None:
    """The wish is in the annotations; a runtime that doesn't know them shows a read-only root."""
    with Bundle.from_rootfs(rootfs, ["sh"], writable="overlay", layer_bytes=4096) as bundle:
        spec = json.loads(Path(bundle.path, "config.json").read_text())
    assert spec["annotations"] == {WRITABLE: "overlay", LAYER_BYTES: "4096"}
    assert spec["root"] == {"path": str(rootfs), "readonly": True}
    with pytest.raises(StopIteration):
        mount_at(spec, "/tmp")
    with Bundle.from_rootfs(rootfs, ["sh"]) as bundle:
        assert "annotations" not in bundle.spec


@needs_root
def test_what_is_run(rootfs: Path, tmp_path: Path) -> None:
    """With a layer, a container's config.json names the container's own root, which is writable."""
    made = Bundle.from_rootfs(rootfs, ["sh"], writable="overlay", path=tmp_path / "b")
    loaded = Bundle.load(tmp_path / "b")
    for bundle in (made, loaded):
        spec = content_of(bundle).derive(cgroup=None, directory="/own")
        assert spec["root"] == {"path": "/own/rootfs", "readonly": False}
        layer = content_of(bundle).layer("/own")
        assert layer is not None
        assert layer.options == ["--lower", str(rootfs), "--layer", "0:/own/rootfs"]
        own = tmp_path / f"own-{id(bundle)}"
        own.mkdir()
        content_of(bundle).build_rootfs(str(own))
        assert os.listdir(own) == ["rootfs"] and os.listdir(own / "rootfs") == []
    assert (
        content_of(made).derive(cgroup=None)["root"]["readonly"] is True
    )  # where there is no shim
    assert made.spec["root"]["readonly"] is True


@needs_root
def test_a_layer_over_the_hosts_programs() -> None:
    """The links and mount points of each container are under the container's layer."""
    with Bundle.from_host(["sh"], writable="overlay", layer_bytes=1 << 20) as bundle:
        layer = content_of(bundle).layer("/own")
        assert layer is not None
        assert layer.options == ["--lower", "/own/rootfs", "--layer", f"{1 << 20}:/own/rootfs"]
        with pytest.raises(InvalidValue, match="'direct': the host's programs are shown read-only"):
            Bundle.from_host(["sh"], writable="direct")


def test_no_layer(rootfs: Path) -> None:
    """Other bundles have none."""
    for writable in (None, "direct"):
        with Bundle.from_rootfs(rootfs, ["sh"], writable=writable) as bundle:
            assert content_of(bundle).layer("/own") is None
            assert content_of(bundle).derive(cgroup=None, directory="/own")["root"]["path"] == str(
                rootfs
            )


def test_an_ordinary_users_layer(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime gets the namespace of the container's ids, and the container stays in the same
    one."""
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getegid", lambda: 54322)
    with Bundle.from_rootfs(rootfs, ["sh"], writable="overlay") as bundle:
        layer = content_of(bundle).layer("/own")
        assert layer is not None
        assert layer.options[4:] == ["--uids", "0 54321 1", "--gids", "0 54322 1"]
        linux = content_of(bundle).derive(cgroup=None, directory="/own")["linux"]
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]
        assert linux["gidMappings"] == [{"containerID": 0, "hostID": 0, "size": 1}]
        assert bundle.spec["linux"]["uidMappings"][0]["hostID"] == 54321
        bundle.spec["linux"]["uidMappings"].append({"containerID": 1, "hostID": 9, "size": 5})
        layer = content_of(bundle).layer("/own")
        assert layer is not None and layer.options[5] == "0 54321 1\n1 9 5"
        linux = content_of(bundle).derive(cgroup=None, directory="/own")["linux"]
        assert linux["uidMappings"][1] == {"containerID": 1, "hostID": 1, "size": 5}


@pytest.mark.parametrize(
    ("annotations", "where", "said"),
    [
        ({WRITABLE: "yes"}, WRITABLE, "must be 'overlay', not 'yes'"),
        ({WRITABLE: ""}, WRITABLE, "must be 'overlay', not ''"),
        ({WRITABLE: "overlay", LAYER_BYTES: ""}, LAYER_BYTES, "must be a number of bytes"),
        ({WRITABLE: "overlay", LAYER_BYTES: "0"}, LAYER_BYTES, "must be a number of bytes"),
        ({WRITABLE: "overlay", LAYER_BYTES: "-1"}, LAYER_BYTES, "must be a number of bytes"),
        ({WRITABLE: "overlay", LAYER_BYTES: "1e6"}, LAYER_BYTES, "must be a number of bytes"),
        ({WRITABLE: "overlay", LAYER_BYTES: "²"}, LAYER_BYTES, "must be a number of bytes"),
        ({WRITABLE: "overlay", LAYER_BYTES: "9" * 5000}, LAYER_BYTES, "must be a number of bytes"),
        ({LAYER_BYTES: "5"}, LAYER_BYTES, f"has no meaning without {WRITABLE}"),
    ],
)
def test_annotations_that_say_nothing(
    bundle: Path, annotations: dict[str, str], where: str, said: str
) -> None:
    """An annotation of ours with an unclear meaning is refused, by name; others' are let
    through."""
    config: dict[str, Any] = {**minimal(), "annotations": {"org.other": "x", **annotations}}
    error = load_error(bundle, config)
    assert isinstance(error, BundleInvalid)
    assert error.where == f"annotations[{where!r}]"
    assert said in str(error)


def test_annotations_of_others(bundle: Path) -> None:
    """A bundle may have none, or any."""
    for told in ({}, {"org.other": "x"}, {WRITABLE: "overlay", LAYER_BYTES: "1"}):
        assert load_error(bundle, {**minimal(), "annotations": told}) is None
