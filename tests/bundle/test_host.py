"""The host's own programs as a root filesystem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.bundle import Bundle, content_of
from supervisor.rootfs._host_view import view_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A small host: /usr and /lib are directories, /bin a link into /usr."""
    root = tmp_path / "host"
    for directory in (
        "usr/bin",
        "usr/share/zoneinfo",
        "lib",
        "etc/ssl/certs",
        "etc/ssl/private",
        "home",
        "run/resolve",
    ):
        (root / directory).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for file in ("etc/passwd", "etc/shadow", "etc/hosts", "usr/share/zoneinfo/UTC"):
        (root / file).touch()
    (root / "run/resolve/stub").touch()
    (root / "etc/localtime").symlink_to("../usr/share/zoneinfo/UTC")
    (root / "etc/resolv.conf").symlink_to("../run/resolve/stub")
    (root / "etc/ld.so.cache").symlink_to("/dangling")
    return root


def test_what_is_shown_of_a_host(host: Path) -> None:
    """Links into /usr are repeated, everything else that is there is bound, and no more."""
    view = view_host(network=False, host_root=str(host))
    assert dict(view.links) == {
        "var/run": "/run",
        "var/tmp": "/tmp",
        "bin": "usr/bin",
        "etc/localtime": "../usr/share/zoneinfo/UTC",
    }
    assert {mount["destination"]: mount["source"] for mount in view.mounts} == {
        f"/{name}": f"{host}/{name}" for name in ("lib", "usr", "etc/passwd", "etc/ssl/certs")
    }
    assert view.files == ("etc/passwd",)
    assert all("ro" in mount["options"] for mount in view.mounts)


def test_the_hosts_network_needs_its_names(host: Path) -> None:
    """With the host's network, the resolver's files are bound, through a link out of /usr too."""
    view = view_host(network=True, host_root=str(host))
    assert {"/etc/hosts", "/etc/resolv.conf"} <= {mount["destination"] for mount in view.mounts}
    assert {"etc/hosts", "etc/resolv.conf"} <= set(view.files)


def test_every_mount_point_is_there() -> None:
    """Each mount in a bundle of the host's programs has a mount point."""
    with Bundle.from_host(["sh"], network="host") as made:
        for mount in made.spec["mounts"]:
            inside = mount["destination"]
            if not inside.startswith(("/dev/", "/sys/")):
                assert os.path.exists(f"{made.path}/rootfs{inside}"), inside


def test_a_container_gets_a_root_filesystem_of_its_own(tmp_path: Path) -> None:
    """Derived for a container's directory, a view of the host no longer needs the bundle."""
    with Bundle.from_host(["sh"]) as made:
        before = sorted(os.listdir(f"{made.path}/rootfs"))
        spec = content_of(made).derive(cgroup=None, directory=str(tmp_path))
        content_of(made).build_rootfs(str(tmp_path))
    assert spec["root"]["path"] == str(tmp_path / "rootfs")
    assert sorted(os.listdir(tmp_path / "rootfs")) == before


def test_a_root_filesystem_of_the_users_is_not_copied(rootfs: Path, tmp_path: Path) -> None:
    """In a derived spec for a container's directory, the user's own root filesystem stays in
    place."""
    target = tmp_path / "target"
    target.mkdir()
    with Bundle.from_rootfs(rootfs, ["sh"]) as made:
        spec = content_of(made).derive(cgroup=None, directory=str(target))
        content_of(made).build_rootfs(str(target))
    assert spec["root"]["path"] == str(rootfs)
    assert os.listdir(target) == []
