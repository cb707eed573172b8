"""Making bundles: what is written. Nothing is run here."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.bundle import Bundle, _bundle
from supervisor.spec import Mount
from supervisor.spec._mounts import READ_ONLY_TREE
from supervisor.spec._swap import counts_swap
from supervisor.testing.strategies import texts
from supervisor.values._errors import InvalidValue
from tests.support.bundle_making import Maker, mount_at, namespaces
from tests.support.bundle_settings import THOROUGH


@pytest.mark.usefixtures("as_root")
def test_the_defaults_are_narrow(rootfs: Path) -> None:
    """No privilege can be gained, few are held, and nothing of the host is shared or writable."""
    spec = Bundle.from_rootfs(rootfs, ["sh"]).spec
    process = spec["process"]
    few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    assert process["noNewPrivileges"] is True
    assert process["capabilities"] == dict.fromkeys(("bounding", "effective", "permitted"), few)
    assert process["terminal"] is False
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["cwd"] == "/"
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert spec["root"] == {"path": str(rootfs), "readonly": True}
    assert spec["hostname"] == "container"
    assert namespaces(spec) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "/proc/sys" in spec["linux"]["readonlyPaths"]
    assert spec["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert mount_at(spec, "/tmp")["type"] == "tmpfs"
    assert mount_at(spec, "/run")["type"] == "tmpfs"
    assert "ro" in mount_at(spec, "/sys")["options"]
    assert not [mount for mount in spec["mounts"] if mount["type"] == "bind"]


@pytest.mark.usefixtures("as_root")
def test_every_argument_reaches_the_config(rootfs: Path) -> None:
    """Each argument is in the place where the runtimes read."""
    spec = Bundle.from_rootfs(
        rootfs,
        ["prog", "", "a b"],
        env={"PATH": "/x", "A": ""},
        cwd="/work",
        user="7:8",
        hostname="box",
        mounts=[Mount(rootfs, "/m"), {"destination": "/t", "type": "tmpfs", "x": 5}],
        writable="direct",
        memory_bytes=1 << 20,
        pids=5,
        cpus=0.25,
        network="host",
    ).spec
    assert spec["process"]["args"] == ["prog", "", "a b"]
    assert spec["process"]["env"] == ["PATH=/x", "A="]
    assert spec["process"]["cwd"] == "/work"
    assert spec["process"]["user"] == {"uid": 7, "gid": 8}
    assert spec["hostname"] == "box"
    assert spec["root"]["readonly"] is False
    assert not {"/tmp", "/run"} & {mount["destination"] for mount in spec["mounts"]}
    assert spec["mounts"][-2] == {
        "destination": "/m",
        "type": "bind",
        "source": str(rootfs),
        "options": list(READ_ONLY_TREE),
    }
    assert spec["mounts"][-1] == {"destination": "/t", "type": "tmpfs", "x": 5}
    resources = spec["linux"]["resources"]
    swap = {"swap": 1 << 20} if counts_swap() else {}
    assert resources["memory"] == {"limit": 1 << 20, **swap}
    assert resources["pids"] == {"limit": 5}
    assert resources["cpu"] == {"quota": 25_000, "period": 100_000}
    assert "network" not in namespaces(spec)


def test_what_is_made_loads_again(make: Maker, tmp_path: Path) -> None:
    """A bundle that was written is valid, and is read back equal."""
    made = make(path=tmp_path / "kept", env={"É": "\n"}, hostname="ü")
    assert Bundle.load(made.path).spec == made.spec
    assert not made.temporary


@THOROUGH
@given(
    args=st.lists(texts(), min_size=1, max_size=4).filter(lambda args: args[0]),
    env=st.dictionaries(texts(min_size=1).filter(lambda name: "=" not in name), texts()),
    cwd=texts().map(lambda text: f"/{text}"),
)
def test_all_text_comes_back(rootfs: Path, args: list[str], env: dict[str, str], cwd: str) -> None:
    """Whatever arguments, variables and directory a C string carries: they stand in the config."""
    with Bundle.from_rootfs(rootfs, args, env=env, cwd=cwd) as bundle:
        process = Bundle.load(bundle.path).spec["process"]
    assert process["args"] == args
    assert process["cwd"] == cwd
    assert set(process["env"]) >= {f"{name}={value}" for name, value in env.items()}
    assert len(process["env"]) == len(env.keys() | {"PATH"})


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        (None, (0, 0)),
        (33, (33, 44)),
        (99, (99, 99)),
        ((5, 6), (5, 6)),
        ("33", (33, 44)),
        ("99", (99, 99)),
        ("33:7", (33, 7)),
        ("web", (33, 44)),
        (4294967294, (4294967294, 4294967294)),
    ],
)
@pytest.mark.usefixtures("as_root")
def test_users(rootfs: Path, user: Any, ids: tuple[int, int]) -> None:
    """A user is a uid, uid and gid, or a name; what isn't said comes from the root filesystem."""
    process = Bundle.from_rootfs(rootfs, ["sh"], user=user).spec["process"]
    assert process["user"] == {"uid": ids[0], "gid": ids[1]}


def test_a_root_filesystem_without_users(tmp_path: Path) -> None:
    """Numbers need no list of users; names do."""
    assert Bundle.from_rootfs(tmp_path, ["sh"], user=0).spec["process"]["user"]["gid"] == 0
    with pytest.raises(InvalidValue, match=r"user: 'web' can't be looked up in .*etc/passwd"):
        Bundle.from_rootfs(tmp_path, ["sh"], user="web")


@pytest.mark.parametrize("target", ["/etc/list", "../etc/list", "../../../../etc/list"])
@pytest.mark.usefixtures("as_root")
def test_a_list_of_users_behind_a_link(rootfs: Path, target: str) -> None:
    """A link is followed as a program inside would follow the link."""
    (rootfs / "etc/passwd").rename(rootfs / "etc/list")
    (rootfs / "etc/passwd").symlink_to(target)
    user = Bundle.from_rootfs(rootfs, ["sh"], user="web").spec["process"]["user"]
    assert user == {"uid": 33, "gid": 44}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../../etc/passwd", "/proc/1/root"])
def test_a_list_of_users_that_leads_out(rootfs: Path, target: str) -> None:
    """No link leads to a file of the host: the image may be a stranger's."""
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to(target)
    with pytest.raises(InvalidValue, match=r"user: 'root' can't be looked up in .*etc/passwd: "):
        Bundle.from_rootfs(rootfs, ["sh"], user="root")


@pytest.mark.parametrize("directory", ["etc", "."])
def test_a_list_of_users_in_a_directory_that_leads_out(
    rootfs: Path, tmp_path: Path, directory: str
) -> None:
    """A link in place of the list's directory doesn't lead to a file of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("web:x:1:1::/:\n")
    (rootfs / "etc").rename(rootfs / "old")
    (rootfs / "etc").symlink_to(outside if directory == "etc" else f"../{outside.name}")
    with pytest.raises(InvalidValue, match=r"user: 'web' can't be looked up in .*etc/passwd: "):
        Bundle.from_rootfs(rootfs, ["sh"], user="web")


def test_a_list_of_users_that_is_a_fifo(rootfs: Path) -> None:
    """A fifo in the list's place is refused, not waited for."""
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    with pytest.raises(InvalidValue, match="not a regular file"):
        Bundle.from_rootfs(rootfs, ["sh"], user="root")


def test_a_list_of_users_that_is_a_device(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device in the list's place isn't even opened: opening some devices has an effect."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    (rootfs / "etc/passwd").unlink()
    os.mknod(rootfs / "etc/passwd", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    opened: list[int] = []
    real = os.open

    def noted(path: str, flags: int, *rest: Any, **named: Any) -> int:
        if not flags & os.O_PATH:
            opened.append(flags)
        return real(path, flags, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", noted)
        with pytest.raises(InvalidValue, match="not a regular file"):
            Bundle.from_rootfs(rootfs, ["sh"], user="root")
    assert opened == []


def test_a_list_of_users_with_endless_numbers(rootfs: Path) -> None:
    """Numbers that are no ids make their line of the list worthless, and no other line."""
    (rootfs / "etc/passwd").write_text(f"a:x:{'9' * 5000}:0::/:\nb:x:٣:0::/:\nweb:x:1:2::/:\n")
    assert Bundle.from_rootfs(rootfs, ["sh"], user="web").spec["process"]["user"]["uid"] == 1
    with pytest.raises(InvalidValue, match="'a' is not listed"):
        Bundle.from_rootfs(rootfs, ["sh"], user="a")


@pytest.mark.usefixtures("as_root")
def test_init_is_bound_into_dev(
    rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``init`` the program is our init's argument, and the init comes with the last mount."""
    init = tmp_path / "init"
    init.touch()
    monkeypatch.setattr(_bundle, "init_path", lambda: str(init))
    spec = Bundle.from_rootfs(rootfs, ["prog", "arg"], init=True, mounts=[Mount("/", "/dev")]).spec
    assert spec["process"]["args"] == ["/dev/init", "--", "prog", "arg"]
    assert spec["mounts"][-1] == {
        "destination": "/dev/init",
        "type": "bind",
        "source": str(init),
        "options": ["bind", "ro", "nosuid", "nodev"],
    }
