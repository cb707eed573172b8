"""Capabilities, resource limits, the out-of-memory killer's choice: asked for, and by default."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from supervisor.bundle import Bundle
from supervisor.spec import _privileges
from supervisor.spec._privileges import (
    CAPABILITIES,
    INFINITY,
    RLIMITS,
    attainable,
    check_privileges,
    with_privileges,
)
from supervisor.spec._seccomp import default_profile
from supervisor.values._errors import InvalidValue
from tests.support.bundle_making import Maker
from tests.support.bundle_running import Runner

KINDS = {
    "RLIMIT_AS": "Max address space",
    "RLIMIT_CORE": "Max core file size",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_DATA": "Max data size",
    "RLIMIT_FSIZE": "Max file size",
    "RLIMIT_LOCKS": "Max file locks",
    "RLIMIT_MEMLOCK": "Max locked memory",
    "RLIMIT_MSGQUEUE": "Max msgqueue size",
    "RLIMIT_NICE": "Max nice priority",
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_NPROC": "Max processes",
    "RLIMIT_RSS": "Max resident set",
    "RLIMIT_RTPRIO": "Max realtime priority",
    "RLIMIT_RTTIME": "Max realtime timeout",
    "RLIMIT_SIGPENDING": "Max pending signals",
    "RLIMIT_STACK": "Max stack size",
}


def limits_of(spec: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {one["type"]: (one["soft"], one["hard"]) for one in spec["process"]["rlimits"]}


def shown(limit: int) -> str:
    return "unlimited" if limit == INFINITY else str(limit)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("capabilities", "KILL", "capabilities must be names, not str"),
        ("capabilities", {"KILL": 1}, "capabilities must be names, not dict"),
        ("capabilities", 5, "capabilities must be names"),
        ("capabilities", ["KIL"], "capabilities: there is no capability 'KIL'"),
        ("capabilities", ["ALL"], "capabilities: there is no capability 'ALL'"),
        ("capabilities", [5], "a name in capabilities must be text"),
        ("rlimits", [("NOFILE", 5)], "rlimits must be a mapping"),
        ("rlimits", {"FILES": 5}, "rlimits: there is no limit 'FILES'"),
        ("rlimits", {5: 5}, "a name in rlimits must be text"),
        ("rlimits", {"NOFILE": "5"}, "the soft RLIMIT_NOFILE must be an integer"),
        ("rlimits", {"NOFILE": True}, "the soft RLIMIT_NOFILE must be an integer"),
        ("rlimits", {"NOFILE": -2}, "the soft RLIMIT_NOFILE must be from 0"),
        ("rlimits", {"NOFILE": (1, 2**64)}, "the hard RLIMIT_NOFILE must be from 0"),
        ("rlimits", {"NOFILE": (1, 2, 3)}, "RLIMIT_NOFILE must be a number, or a soft and a hard"),
        ("rlimits", {"NOFILE": (2, 1)}, "the soft RLIMIT_NOFILE is above the hard one"),
        ("oom_score_adj", -1001, "oom_score_adj must be from -1000"),
        ("oom_score_adj", 1001, "oom_score_adj must be from"),
        ("oom_score_adj", True, "oom_score_adj must be an integer"),
        ("tmpfs_bytes", 0, "tmpfs_bytes must be from 1"),
        ("tmpfs_bytes", 1.5, "tmpfs_bytes must be an integer"),
        ("seccomp", "", "seccomp: '' is neither 'default' nor 'unconfined'"),
        ("seccomp", "unconfind", "'unconfind' is neither .*: No such file"),
        ("seccomp", "/", "can't be read as a file: /: not a regular file"),
        ("seccomp", "a\0", "seccomp holds a NUL"),
        ("seccomp", None, None),
        ("seccomp", 5, "seccomp must be text"),
        ("seccomp", {}, "seccomp profile.defaultAction is missing"),
        ("seccomp", {"defaultAction": "ALLOW"}, "profile.defaultAction must be an action such as"),
        (
            "seccomp",
            {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [], "action": "x"}]},
            r"profile.syscalls\[0\].names must not be empty",
        ),
        (
            "seccomp",
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "archMap": [{"architecture": "SCMP_ARCH_X86"}],
                "architectures": ["SCMP_ARCH_X86"],
            },
            "architectures and archMap don't go together",
        ),
        ("seccomp", {"defaultAction": {1}}, "seccomp.defaultAction is no JSON value"),
    ],
)
def test_what_is_refused(make: Maker, tmp_path: Path, argument: str, value: Any, said: str) -> None:
    """An argument that can't work is refused by name, before anything is written."""
    before = sorted(tmp_path.rglob("*"))
    if said is None:
        make(**{argument: value}).close()
        return
    with pytest.raises(InvalidValue, match=said):
        make(**{argument: value})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_writable_root_has_no_tmpfs(rootfs: Path) -> None:
    """``tmpfs_bytes`` is refused for a container without a /tmp of its own."""
    with pytest.raises(InvalidValue, match="tmpfs_bytes: /tmp and /run"):
        Bundle.from_rootfs(rootfs, ["sh"], writable="direct", tmpfs_bytes=5)


def test_every_limit_is_said(make: Maker) -> None:
    """Whatever the supervisor's limits are, none is inherited: all that there are have a value."""
    with make() as bundle:
        found = limits_of(bundle.spec)
    assert set(found) == set(RLIMITS) == set(KINDS)
    for kind, (soft, hard) in found.items():
        assert soft <= hard <= RLIMITS[kind][1]
        assert soft <= RLIMITS[kind][0]


def test_who_may_not_raise_limits(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default above our own hard limit would fail the create, so our limit is taken.

    A limit that the caller asks for isn't changed: it is refused.
    """
    monkeypatch.setattr(_privileges, "may_raise_limits", lambda: False)
    monkeypatch.setattr(resource, "getrlimit", lambda number: (100, 200))
    with make() as bundle:
        found = limits_of(bundle.spec)
    assert found["RLIMIT_NOFILE"] == (200, 200)
    assert found["RLIMIT_CORE"] == (0, 0)
    assert found["RLIMIT_STACK"] == (200, 200)
    with pytest.raises(InvalidValue, match="the hard RLIMIT_STACK can't be 300: this process has"):
        make(rlimits={"STACK": (5, 300)})
    monkeypatch.setattr(_privileges, "may_raise_limits", lambda: True)
    with make(rlimits={"STACK": (5, 300)}) as bundle:
        assert limits_of(bundle.spec)["RLIMIT_NOFILE"] == RLIMITS["RLIMIT_NOFILE"]


def test_limits_that_were_lowered_since(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle's defaults are lowered with ours, at each create and exec; the author's limits
    aren't.

    Every create once failed for a supervisor that had lowered a limit and may not raise any.
    """
    monkeypatch.setattr(_privileges, "may_raise_limits", lambda: True)
    with make(rlimits={"SIGPENDING": (5, 300)}) as bundle:
        process = bundle.spec["process"]
    monkeypatch.setattr(resource, "getrlimit", lambda number: (100, 200))
    assert attainable(process) is process
    monkeypatch.setattr(_privileges, "may_raise_limits", lambda: False)
    found = limits_of({"process": attainable(process)})
    assert found["RLIMIT_NOFILE"] == (200, 200)
    assert found["RLIMIT_CORE"] == (0, 0)
    assert found["RLIMIT_SIGPENDING"] == (5, 300)
    assert limits_of({"process": process})["RLIMIT_NOFILE"] != (200, 200)
    bare = {"args": ["sh"]}
    assert attainable(bare) is bare


@pytest.mark.usefixtures("as_root")
def test_what_is_asked_for(rootfs: Path) -> None:
    """Each argument is in the place where the runtimes read; other limits keep their defaults."""
    with Bundle.from_rootfs(
        rootfs,
        ["sh"],
        capabilities=["kill", "CAP_KILL", "Net_Raw"],
        rlimits={"nofile": (5, 6), "RLIMIT_CORE": -1 if _privileges.may_raise_limits() else 0},
        oom_score_adj=700,
        tmpfs_bytes=8 << 20,
    ) as bundle:
        spec = bundle.spec
    few = ["CAP_KILL", "CAP_NET_RAW"]
    assert spec["process"]["capabilities"] == dict.fromkeys(
        ("bounding", "effective", "permitted"), few
    )
    assert limits_of(spec)["RLIMIT_NOFILE"] == (5, 6)
    assert limits_of(spec)["RLIMIT_NICE"] == (0, 0)
    assert spec["process"]["oomScoreAdj"] == 700
    for mount in spec["mounts"]:
        if mount["destination"] in ("/tmp", "/run"):
            assert {"size=8388608", "nr_inodes=2048"} <= set(mount["options"])


def test_capabilities_of_who_is_not_root(rootfs: Path) -> None:
    """Requested capabilities outlive the exec of a user who isn't root, because they are ambient;
    the default ones don't."""
    every = {"bounding", "effective", "permitted", "inheritable", "ambient"}
    with Bundle.from_rootfs(rootfs, ["sh"], user=0, capabilities=["KILL"]) as bundle:
        assert set(bundle.spec["process"]["capabilities"]) == every - {"inheritable", "ambient"}
    process = {"user": {"uid": 5, "gid": 5}}
    asked = check_privileges(capabilities=["KILL"], rlimits=None, oom_score_adj=None, seccomp=None)
    changed = with_privileges({"process": process, "linux": {}}, asked)
    assert changed["process"]["capabilities"] == {kind: ["CAP_KILL"] for kind in every}


def changed_by(spec: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    nothing = {"capabilities": None, "rlimits": None, "oom_score_adj": None, "seccomp": None}
    return with_privileges(spec, check_privileges(**{**nothing, **keywords}))


def test_a_create_changes_what_it_says_and_no_more() -> None:
    """A create's options replace the loaded bundle's, or are added; all else stays the author's."""
    loaded = {
        "process": {
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
            "capabilities": {"bounding": ["CAP_KILL"]},
        },
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG"}},
    }
    assert changed_by(loaded) == loaded
    assert limits_of(changed_by(loaded, rlimits={"CORE": 0})) == {
        "RLIMIT_NOFILE": (1, 2),
        "RLIMIT_CORE": (0, 0),
    }
    assert changed_by(loaded, capabilities=["SYS_ADMIN"])["linux"] == loaded["linux"]
    assert changed_by(loaded, oom_score_adj=1000)["process"]["oomScoreAdj"] == 1000
    assert "seccomp" not in changed_by(loaded, seccomp="unconfined")["linux"]
    ours = changed_by(loaded, seccomp="default")["linux"]["seccomp"]
    assert ours == default_profile(frozenset({"CAP_KILL"}))
    bare = {"process": {}, "linux": {}}
    assert changed_by(bare) == bare
    assert changed_by(bare, oom_score_adj=5)["linux"] == {}


def test_our_profile_goes_by_the_capabilities(rootfs: Path) -> None:
    """Given more at create, a container may make the calls that they are for."""
    with Bundle.from_rootfs(rootfs, ["sh"]) as bundle:
        assert bundle.spec["linux"]["seccomp"] == default_profile(frozenset(CAPABILITIES))
        more = changed_by(bundle.spec, capabilities=["SYS_CHROOT"])
    assert more["linux"]["seccomp"] == default_profile(frozenset({"CAP_SYS_CHROOT"}))
    assert more["linux"]["seccomp"] != bundle.spec["linux"]["seccomp"]


# ---- with a real runtime --------------------------------------------------------------


def test_limits_inside(runner: Runner, busybox: Path) -> None:
    """The limits inside are those that were said, of every kind."""
    bundle = Bundle.from_rootfs(busybox, ["cat", "/proc/self/limits"], rlimits={"NOFILE": (50, 60)})
    wanted = limits_of(bundle.spec)
    lines = runner.output(bundle).splitlines()
    for kind, name in KINDS.items():
        line = next(line for line in lines if line.startswith(name))
        soft, hard = wanted[kind]
        assert line.removeprefix(name).split()[:2] == [shown(soft), shown(hard)], kind
    assert wanted["RLIMIT_NOFILE"] == (50, 60)


def test_the_out_of_memory_killers_choice(runner: Runner, busybox: Path) -> None:
    """The score is 0 by default, whatever the supervisor's score is, or the requested one."""
    script = ["cat", "/proc/self/oom_score_adj"]
    with open("/proc/self/oom_score_adj") as file:
        own = int(file.read())
    assert int(runner.output(Bundle.from_rootfs(busybox, script))) == max(0, own)
    wanted = Bundle.from_rootfs(busybox, script, oom_score_adj=500)
    assert int(runner.output(wanted)) == max(500, own)


def test_tmp_and_run_are_bounded(runner: Runner, busybox: Path) -> None:
    """/tmp and /run hold the given bytes and a matching number of files: unbounded empty files took
    the kernel's memory."""
    script = (
        "for d in /tmp /run; do head -c 2000000 /dev/zero > $d/x && echo too much; rm $d/x;"
        " n=0; while true > $d/$n; do n=$((n+1)); done; echo $d $n; done"
    )
    bundle = Bundle.from_rootfs(busybox, ["sh", "-c", script], tmpfs_bytes=1 << 20)
    assert runner.output(bundle).split() == ["/tmp", "1023", "/run", "1023"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may limit here")
def test_swap_is_bounded(runner: Runner, busybox: Path) -> None:
    """The limit on memory holds for memory and swap together, where the machine counts swap."""
    path = "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
    if not os.path.exists(path):
        pytest.skip("this machine has no version 1 memory cgroup that counts swap")
    bundle = Bundle.from_rootfs(busybox, ["cat", path], memory_bytes=64 << 20)
    assert runner.output(bundle) == f"{64 << 20}\n"


def test_timings_of_the_processor_are_masked(runner: Runner, busybox: Path) -> None:
    """/proc/interrupts would show when keys are pressed, so that file is empty."""
    assert runner.output(Bundle.from_rootfs(busybox, ["cat", "/proc/interrupts"])) == ""
