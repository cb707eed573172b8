"""Bundles of ordinary users. Nothing is run here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.bundle._load import check_spec
from supervisor.userns import _rootless
from supervisor.userns._rootless import check_limits, subordinate
from supervisor.values._errors import InvalidValue
from tests.support.bundle_making import mount_at, namespaces


@pytest.mark.usefixtures("as_somebody")
def test_somebody_gets_a_user_namespace(rootfs: Path) -> None:
    """An ordinary user is root inside, has no other ids, and mounts only what the kernel allows."""
    spec = Bundle.from_rootfs(rootfs, ["sh"]).spec
    linux = spec["linux"]
    assert "user" in namespaces(spec)
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1234, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 567, "size": 1}]
    assert "resources" not in linux
    assert "gid=5" not in mount_at(spec, "/dev/pts")["options"]
    assert "/sys/fs/cgroup" not in {mount["destination"] for mount in spec["mounts"]}
    check_spec(spec, str(rootfs))


@pytest.mark.usefixtures("as_somebody")
def test_somebody_on_the_hosts_network_sees_its_sysfs(rootfs: Path) -> None:
    """Without a network namespace of their own they can't mount a sysfs: the host's is bound."""
    sysfs = mount_at(Bundle.from_rootfs(rootfs, ["sh"], network="host").spec, "/sys")
    assert (sysfs["type"], sysfs["source"]) == ("bind", "/sys")
    assert {"ro", "rro"} <= set(sysfs["options"])


@pytest.mark.usefixtures("as_somebody")
def test_somebody_has_no_other_ids(rootfs: Path) -> None:
    """A user without a mapping is refused, and the error says what is missing."""
    with pytest.raises(InvalidValue, match=r"uid 33 doesn't exist .* install uidmap"):
        Bundle.from_rootfs(rootfs, ["sh"], user="web")
    with pytest.raises(InvalidValue, match=r"gid 1 doesn't exist .* /etc/subgid"):
        Bundle.from_rootfs(rootfs, ["sh"], user=(0, 1))


def test_subordinate_ids(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With newuidmap and a name, a user's subordinate ids follow the user's own id."""
    lines = {
        "/etc/subuid": ["else:1:5", "me:100000:1000", "1234:300000:500"],
        "/etc/subgid": ["me:200000:65536"],
    }
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getegid", lambda: 567)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(_rootless, "_name", lambda uid: "me")
    monkeypatch.setattr(_rootless, "_lines", lines.__getitem__)
    spec = Bundle.from_rootfs(rootfs, ["sh"], user="web").spec
    assert spec["linux"]["uidMappings"] == [
        {"containerID": 0, "hostID": 1234, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 1000},
        {"containerID": 1001, "hostID": 300000, "size": 500},
    ]
    assert spec["linux"]["gidMappings"][1] == {"containerID": 1, "hostID": 200000, "size": 65536}
    assert "gid=5" in mount_at(spec, "/dev/pts")["options"]


def test_somebody_without_a_name_has_no_subordinate_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """newuidmap refuses a user who isn't in /etc/passwd, whatever /etc/subuid says."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(_rootless, "_lines", lambda path: ["4000000000:100000:65536"])
    namespace = _rootless.user_namespace()
    assert namespace is not None
    assert len(namespace.uids) == len(namespace.gids) == 1


@pytest.mark.parametrize(
    "line", ["", "me", "me:1", "me:x:5", "me:5:x", "me:5:0", "me:5:6:7", ":1:2"]
)
def test_lines_that_give_no_ids(line: str) -> None:
    """A line that isn't a name, a start and a size gives nothing."""
    assert subordinate([line], {"me"}) == ()


@pytest.mark.usefixtures("as_somebody")
def test_limits_that_nobody_would_enforce_are_refused(
    rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not divide a cgroup can't have limits, and the error comes before any
    write."""
    monkeypatch.setattr(_rootless, "_own_cgroup", lambda root: None)
    with pytest.raises(InvalidValue, match=r"memory_bytes, pids: can't be enforced, since you are"):
        Bundle.from_rootfs(rootfs, ["sh"], memory_bytes=1 << 20, pids=5)


@pytest.fixture
def delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 2 hierarchy in which our cgroup has two controllers."""
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cgroup.controllers").write_text("memory pids\n")
    real = _rootless._lines
    monkeypatch.setattr(
        _rootless,
        "_lines",
        lambda path: (
            ["1:name=systemd:/x", "0::/mine"] if path == "/proc/self/cgroup" else real(path)
        ),
    )
    return tmp_path


def test_limits_in_a_delegated_cgroup(delegated: Path) -> None:
    """Where a cgroup with the right controllers is ours, limits are fine; the others are named."""
    check_limits(["memory_bytes", "pids"], cgroup_root=str(delegated))
    with pytest.raises(InvalidValue, match=r"cpus: .* lacks the cpu controller"):
        check_limits(["memory_bytes", "cpus"], cgroup_root=str(delegated))


def test_limits_in_a_cgroup_of_somebody_elses(
    delegated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cgroup that we are in but may not divide is no use."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(delegated / "mine"))
    with pytest.raises(InvalidValue, match="pids: can't be enforced, since you aren't root"):
        check_limits(["pids"], cgroup_root=str(delegated))


def test_limits_without_a_pure_version_2(delegated: Path) -> None:
    """In hierarchies of version 1 nothing can be delegated safely, and nothing is assumed."""
    (delegated / "cgroup.controllers").unlink()
    check_limits([], cgroup_root=str(delegated))
    with pytest.raises(InvalidValue, match="pids: can't be enforced"):
        check_limits(["pids"], cgroup_root=str(delegated))
