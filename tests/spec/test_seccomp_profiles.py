"""Profiles: docker's form and OCI's, for capabilities, architectures and kernels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle
from supervisor.spec._seccomp import _PROFILE, check_seccomp, resolve
from supervisor.values._errors import InvalidValue
from tests.support.bundle_running import Runner

HOST = os.uname_result(("Linux", "host", "6.1.0-9-amd64", "", "x86_64"))


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}


def names(profile: dict[str, Any], *capabilities: str, host: os.uname_result = HOST) -> list[str]:
    resolved = resolve(profile, frozenset(capabilities), host)
    assert all(set(one) <= {"names", "action", "args", "errnoRet"} for one in resolved["syscalls"])
    return [name for one in resolved["syscalls"] for name in one["names"]]


def test_what_an_entry_is_for() -> None:
    """An entry counts if all of the entry's capabilities, one architecture and the kernel match,
    and no exclusion does."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            entry("always", comment="x", args=None, includes={}, excludes={}),
            entry("both", includes={"caps": ["CAP_A", "CAP_B"]}),
            entry("here", includes={"arches": ["arm", "amd64"]}),
            entry("there", includes={"arches": ["arm"]}),
            entry("old", includes={"minKernel": "4.8"}),
            entry("new", includes={"minKernel": "6.2"}),
            entry("without", excludes={"caps": ["CAP_A", "CAP_C"]}),
            entry("elsewhere", excludes={"arches": ["amd64"]}),
        ],
    }
    assert names(profile) == ["always", "here", "old", "without"]
    assert names(profile, "CAP_A") == ["always", "here", "old"]
    assert names(profile, "CAP_A", "CAP_B") == ["always", "both", "here", "old"]


def test_the_architectures_of_a_machine() -> None:
    """Docker's map gives the machine's own architecture, and the others that the machine runs."""
    profile = json.loads(Path(_PROFILE).read_text())
    assert resolve(profile, frozenset(), HOST)["architectures"] == [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
    ]
    for machine, first in {"aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}.items():
        host = os.uname_result(("Linux", "host", "6.1", "", machine))
        assert resolve(profile, frozenset(), host)["architectures"][0] == first
    odd = resolve(profile, frozenset(), os.uname_result(("Linux", "host", "odd", "", "odd")))
    assert "architectures" not in odd


def test_ours_is_a_profile() -> None:
    """Our own file passes the check that others have to pass, and each name stands once."""
    assert check_seccomp(_PROFILE) == json.loads(Path(_PROFILE).read_text())
    plain = [
        name
        for one in json.loads(Path(_PROFILE).read_text())["syscalls"]
        if not {"args", "includes"} & set(one)
        for name in one["names"]
    ]
    assert len(plain) == len(set(plain)) > 300


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    """The error for a bad profile file has the file's name."""
    path = tmp_path / "p.json"
    for text, said in {"{": "p.json is not JSON", "[]": "p.json must be a mapping"}.items():
        path.write_text(text)
        with pytest.raises(InvalidValue, match=said):
            check_seccomp(path)
    path.write_text('{"defaultAction": "x"}')
    with pytest.raises(InvalidValue, match=r"p\.json: profile\.defaultAction must be an action"):
        check_seccomp(path)


def test_a_profile_of_the_callers(runner: Runner, busybox: Path, tmp_path: Path) -> None:
    """A mapping or a file in docker's form works: a call that the profile refuses fails inside."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": None}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            entry("no_such_call_at_all"),
        ],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    for given in (profile, path, str(path)):
        done = runner.run(Bundle.from_rootfs(busybox, ["mkdir", "/tmp/x"], seccomp=given))
        assert "No space left on device" in done.stderr
