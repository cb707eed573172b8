"""Making bundles: what is refused, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle
from supervisor.spec import Mount
from supervisor.values._errors import InvalidValue

SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("args", [], "args must begin with the program"),
        ("args", [""], "args must begin with the program"),
        ("args", "ls -l", "args must be a sequence of text, not str"),
        ("args", None, "args must be a sequence of text"),
        ("args", ["a", 5], r"args\[1\] must be text, not int"),
        ("args", ["a", "b\0c"], r"args\[1\] holds a NUL"),
        ("args", [SURROGATE], r"args\[0\] holds a lone surrogate"),
        ("env", ["A=b"], "env must be a mapping"),
        ("env", {"": "x"}, "env: '' can't be a variable's name"),
        ("env", {"A=B": "x"}, "env: 'A=B' can't be a variable's name"),
        ("env", {"A": 5}, r"env\['A'\] must be text"),
        ("env", {"A": "\0"}, r"env\['A'\] holds a NUL"),
        ("env", {5: "x"}, "a name in env must be text"),
        ("cwd", "tmp", "cwd must be an absolute path"),
        ("cwd", "", "cwd must be an absolute path"),
        ("cwd", "/\0", "cwd holds a NUL"),
        ("cwd", None, "cwd must be text"),
        ("user", -1, "user must be from 0"),
        ("user", 2**32 - 1, "user must be from 0"),
        ("user", True, "user must be an integer"),
        ("user", 1.5, "user must be an integer"),
        ("user", (1,), "user must be a uid, a pair"),
        ("user", (1, "x"), "user must be an integer"),
        ("user", "", "user must be a uid, uid:gid or a name"),
        ("user", "5:", "user must be a uid, uid:gid or a name"),
        ("user", "99999999999", "user must be a uid, uid:gid or a name"),
        ("user", "nobody-here", "user: 'nobody-here' is not listed in"),
        ("user", "\0", "user holds a NUL"),
        ("hostname", "", "hostname must be 1 to 64 bytes"),
        ("hostname", "é" * 33, "hostname must be 1 to 64 bytes"),
        ("hostname", 5, "hostname must be text"),
        ("mounts", "x", "mounts must be a sequence"),
        ("mounts", {"destination": "/x"}, "mounts must be a sequence"),
        ("mounts", 5, "mounts must be a sequence"),
        ("mounts", ["x"], r"mounts\[0\] must be a Mount, or a mapping as in config.json, not str"),
        ("mounts", [{}], r"mounts\[0\].destination is missing"),
        ("mounts", [{"destination": "x"}], r"mounts\[0\].destination must be an absolute"),
        ("mounts", [{"destination": "/x", "options": "ro"}], r"mounts\[0\].options must be an arr"),
        ("mounts", [{"destination": "/x", "type": "bind"}], r"mounts\[0\].source must be an abs"),
        ("mounts", [{"destination": "/x", "source": "s", "options": ["rbind"]}], "absolute path"),
        ("mounts", [{"destination": "/x", "type": {1}}], r"mounts\[0\].type is no JSON value"),
        ("mounts", [Mount("/nowhere/at/all", "/x")], r"mounts\[0\]: the source /nowhere/at/all"),
        ("writable", "yes", "writable must be 'direct' or 'overlay'"),
        ("writable", True, "writable must be 'direct', 'overlay' or None, not True"),
        ("layer_bytes", 5, "layer_bytes: there is a layer only with writable='overlay'"),
        ("init", 1, "init must be True or False"),
        ("memory_bytes", 0, "memory_bytes must be from 1"),
        ("memory_bytes", 2**63, "memory_bytes must be from 1"),
        ("memory_bytes", 1.5, "memory_bytes must be an integer"),
        ("pids", 0, "pids must be from 1"),
        ("pids", True, "pids must be an integer"),
        ("cpus", 0, "cpus must be from 0.01"),
        ("cpus", -1, "cpus must be from"),
        ("cpus", float("nan"), "cpus must be from"),
        ("cpus", float("inf"), "cpus must be from"),
        ("cpus", "1", "cpus must be a number"),
        ("cpus", 10**400, "cpus must be from"),
        ("network", "bridge", "network must be 'none' or 'host'"),
        ("network", None, "network must be"),
        ("network", [], "network must be"),
        ("path", "", "path must not be empty"),
        ("path", "a\0b", "path holds a NUL"),
        ("path", b"x", "path must be text"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(
    rootfs: Path, tmp_path: Path, argument: str, value: Any, said: str
) -> None:
    """An argument that can't work is refused by name, and neither maker leaves a trace."""
    before = sorted(tmp_path.rglob("*"))
    keywords: dict[str, Any] = {"args": ["sh"], "path": tmp_path / "new", argument: value}
    with pytest.raises(InvalidValue, match=said):
        Bundle.from_rootfs(rootfs, **keywords)
    with pytest.raises(InvalidValue, match=said):
        Bundle.from_host(**keywords)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "rootfs must not be empty"),
        ("/nowhere/at/all", "rootfs: there is no directory /nowhere/at/all"),
        (__file__, "rootfs: there is no directory"),
        (5, "rootfs must be text"),
        (SURROGATE, "rootfs holds a lone surrogate"),
    ],
)
def test_a_root_filesystem_that_is_none(value: Any, said: str) -> None:
    """A root filesystem that isn't there is refused by name."""
    with pytest.raises(InvalidValue, match=said):
        Bundle.from_rootfs(value, ["sh"])


def test_the_host_is_not_writable() -> None:
    """No caller can ask to write in the host's own programs."""
    with pytest.raises(InvalidValue, match="writable='direct': the host's programs"):
        Bundle.from_host(["sh"], writable="direct")


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("x", "/x", "the source of a mount must be an absolute path"),
        ("/x", "x", "the destination of a mount must be an absolute path"),
        ("/\0", "/x", "the source of a mount holds a NUL"),
        (5, "/x", "the source of a mount must be text"),
    ],
)
def test_mounts_are_checked_when_made(source: Any, destination: Any, said: str) -> None:
    """A mount that can't work is refused when the `Mount` is made."""
    with pytest.raises(InvalidValue, match=said):
        Mount(source, destination)
    with pytest.raises(InvalidValue, match="read_only must be True or False"):
        Mount("/x", "/x", read_only=1)  # type: ignore[arg-type]


def test_how_a_mount_is_written(tmp_path: Path) -> None:
    """Read-only trees stay so below; files are bound alone, which crun needs; writable is
    explicit."""
    (tmp_path / "file").touch()
    tree, file = Mount(tmp_path, "/x"), Mount(tmp_path / "file", "/x")
    recursive = ["nosuid", "rnosuid", "nodev", "rnodev"]
    assert tree.to_json()["options"] == ["rbind", "ro", "rro", *recursive]
    assert file.to_json()["options"] == ["bind", "ro", "nosuid", "nodev"]
    writable = Mount(tmp_path, "/x", read_only=False)
    assert writable.to_json()["options"] == ["rbind", "rw", *recursive]
    writable = Mount(tmp_path / "file", "/x", read_only=False)
    assert writable.to_json()["options"] == ["bind", "rw", "nosuid", "nodev"]
