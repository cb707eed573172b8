"""The config.json that is run."""

from __future__ import annotations

import json

from supervisor.bundle._compose import derive_spec


def test_a_derived_spec_stands_anywhere() -> None:
    """Relative paths become absolute, the cgroup is set, the rest stays."""
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "cwd": "/"},
        "root": {"path": "./rootfs"},
        "mounts": [
            {"destination": "/a", "source": "data", "options": ["rbind"]},
            {"destination": "/b", "type": "bind", "source": "/abs"},
            {"destination": "/c", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/d"},
        ],
        "linux": {"cgroupsPath": "/mine"},
        "x": [1],
    }
    before = json.dumps(spec)
    derived = derive_spec(spec, "/bundle", cgroup="/c/1")
    assert derived["root"]["path"] == "/bundle/rootfs"
    assert [mount.get("source") for mount in derived["mounts"]] == [
        "/bundle/data",
        "/abs",
        "tmpfs",
        None,
    ]
    assert derived["linux"]["cgroupsPath"] == "/c/1"
    assert derived["process"] == {"args": ["sh"], "cwd": "/", "terminal": False}
    assert derived["x"] == [1]
    assert json.dumps(spec) == before


def test_a_shared_cgroup_is_left_out() -> None:
    """A container without a cgroup of its own doesn't get the bundle's, which others share."""
    spec = {
        "process": {"args": ["sh"], "terminal": True},
        "root": {"path": "/r"},
        "mounts": None,
        "linux": {"cgroupsPath": "/mine"},
    }
    derived = derive_spec(spec, "/bundle", cgroup=None)
    assert "cgroupsPath" not in derived["linux"]
    assert derived["process"]["terminal"] is False
