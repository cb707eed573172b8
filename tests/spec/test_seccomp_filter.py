"""The filter that crun is given: the same answer to each call as libseccomp's for the profile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.spec import for_runtime
from supervisor.spec._bpf import _numbers, compile_filter
from supervisor.spec._filter import ANNOTATION
from supervisor.spec._privileges import CAPABILITIES, check_privileges, with_privileges
from supervisor.spec._seccomp import _PROFILE, default_profile, resolve
from supervisor.values._errors import InvalidValue
from tests.spec import libseccomp
from tests.spec.libseccomp import ALLOW, ERRNO, TOKENS

EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
NAMESPACES = [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)]
ARGUMENTS = [
    *range(50),
    *NAMESPACES,
    0x20008,
    0xFFFFFFFF,
    0xFFFFFFFE,
    1 << 32,
    (1 << 32) + 2,
    (1 << 64) - 1,
]
CALLS = ("clone", "personality", "socket")
COLUMNS = {
    "SCMP_ARCH_X86_64": "amd64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_AARCH64": "arm64",
    "SCMP_ARCH_ARM": "arm",
}


def profile_of(machine: str, capabilities: tuple[str, ...] = CAPABILITIES) -> dict[str, Any]:
    host = os.uname_result(("Linux", "host", "6.1.0", "", machine))
    return resolve(json.loads(Path(_PROFILE).read_text()), frozenset(capabilities), host)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("more", [(), ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_SYS_NICE")])
def test_it_answers_as_libseccomp_does(machine: str, more: tuple[str, ...]) -> None:
    """Every call of every architecture gets libseccomp's answer, whatever the first argument is.

    libseccomp may know fewer calls than the profile names, and gives those the default answer.
    """
    library = libseccomp.load()
    if library is None:
        pytest.skip("no libseccomp here")
    profile = profile_of(machine, (*CAPABILITIES, *more))
    compiled = compile_filter(profile)
    assert compiled is not None
    ours, theirs = (
        libseccomp.decode(compiled),
        libseccomp.decode(libseccomp.export(library, profile)),
    )
    for architecture in profile["architectures"]:
        token, numbers = TOKENS[architecture], _numbers()[COLUMNS[architecture]]
        unknown = {
            number
            for name, number in numbers.items()
            if library.seccomp_syscall_resolve_name(name.encode()) == -1
        }
        last = max(number for number in numbers.values() if number < 1000)
        conditional = {numbers[name] for name in CALLS}
        width = 64 if COLUMNS[architecture].endswith("64") else 32  # of a register
        tried = [one for one in ARGUMENTS if one < 1 << width]
        x32 = {0x40000000, 0x40000029} if architecture == "SCMP_ARCH_X86_64" else set()
        for number in ({*range(last + 1), *numbers.values()} | x32) - unknown:
            for argument in tried if number in conditional else (0, 0xFFFFFFFF):
                call = (token, number, argument)
                assert libseccomp.answer(ours, *call) == libseccomp.answer(theirs, *call), call


def test_newer_calls_are_unknown() -> None:
    """A call above all that the profile names says ENOSYS, so that programs try an older one."""
    compiled = compile_filter(profile_of("x86_64"))
    assert compiled is not None
    code = libseccomp.decode(compiled)
    for token in (TOKENS["SCMP_ARCH_X86_64"], TOKENS["SCMP_ARCH_X86"]):
        for number in (467, 480, 1000, 0x3FFFFFFF):
            assert libseccomp.answer(code, token, number) == ENOSYS
    assert libseccomp.answer(code, TOKENS["SCMP_ARCH_ARM"], 1) == libseccomp.KILL


@pytest.mark.parametrize(
    ("call", "arguments", "said"),
    [
        ("socket", [1, 2, 10, 16, 17], ALLOW),
        ("socket", [0, 3, 11, 12, 15, 18, 21, 30, 31, 38, 40, 44, 45, (1 << 32) + 1], EPERM),
        ("personality", [0, 8, 0x20000, 0x20008, 0xFFFFFFFF], ALLOW),
        ("personality", [1, 0x40000, 0x400000, (1 << 32) + 8], EPERM),
        ("clone", [0, 17, 0x3D0F00], ALLOW),
        ("clone", [*NAMESPACES, 17 | 1 << 28], EPERM),
        ("clone3", [0], ENOSYS),
        ("unshare", [0, 1 << 28], EPERM),
        ("ptrace", [0, 16], ALLOW),
    ],
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_calls_that_go_by_an_argument(
    machine: str, call: str, arguments: list[int], said: int
) -> None:
    """Address families, personalities and namespaces: only harmless ones pass."""
    profile = profile_of(machine)
    compiled = compile_filter(profile)
    assert compiled is not None
    code = libseccomp.decode(compiled)
    for architecture in profile["architectures"]:
        number = _numbers()[COLUMNS[architecture]][call]
        for argument in arguments:
            assert libseccomp.answer(code, TOKENS[architecture], number, argument) == said


def test_numbers_are_the_kernels() -> None:
    """The table of numbers agrees with libseccomp's, wherever that knows a call."""
    library = libseccomp.load()
    if library is None:
        pytest.skip("no libseccomp here")
    seen = 0
    for architecture, column in COLUMNS.items():
        for name, number in _numbers()[column].items():
            known = library.seccomp_syscall_resolve_name_arch(
                TOKENS[architecture] - (1 << 32 if TOKENS[architecture] >> 31 else 0),
                name.encode(),
            )
            if known >= 0:
                assert known == number, (architecture, name)
                seen += 1
    assert seen > 1000


def spec_with(profile: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "annotations": {"a": "b"},
        "process": {"capabilities": {"bounding": list(CAPABILITIES)}},
        "linux": {} if profile is None else {"seccomp": profile},
    }


def test_who_gets_it(tmp_path: Path) -> None:
    """crun gets our profile compiled, and no profile that an older crun would take for a filter
    that allows something; a foreign profile, and other runtimes, get the profile unchanged."""
    crun = tmp_path / "crun"
    crun.write_bytes(b"\x7fELF ... +SECCOMP ...")
    ours = default_profile(frozenset(CAPABILITIES))
    given = spec_with(ours)
    compiled = for_runtime(given, str(crun))
    assert compiled["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ERRNO"}
    assert set(compiled["annotations"]) == {"a", ANNOTATION}
    assert given == spec_with(ours)
    assert for_runtime(given, "/usr/bin/runc") == given
    for other in (None, {**ours, "defaultAction": "SCMP_ACT_KILL"}):
        assert for_runtime(spec_with(other), str(crun)) == spec_with(other)


def test_a_crun_without_seccomp(tmp_path: Path) -> None:
    """A crun without libseccomp ignores the profile silently, and is refused."""
    crun = tmp_path / "crun"
    crun.write_bytes(b"\x7fELF ... +SYSTEMD ...")
    with pytest.raises(InvalidValue, match="was built without seccomp"):
        for_runtime(spec_with(default_profile(frozenset(CAPABILITIES))), str(crun))
    assert for_runtime(spec_with(None), str(crun)) == spec_with(None)


def test_a_profile_of_the_callers_is_the_only_one() -> None:
    """A loaded bundle's own compiled filter stood above the profile that create was given."""
    own = {ANNOTATION: "AAAA", "run.oci.seccomp.plugins": "x", "a": "b"}
    spec = {"process": {}, "linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG"}}}
    asked = {"capabilities": None, "rlimits": None, "oom_score_adj": None}
    for seccomp in ("default", "unconfined", {"defaultAction": "SCMP_ACT_ALLOW"}):
        wanted = check_privileges(seccomp=seccomp, **asked)
        assert with_privileges({**spec, "annotations": own}, wanted)["annotations"] == {"a": "b"}
        assert "annotations" not in with_privileges(spec, wanted)
    nothing = check_privileges(seccomp=None, **{**asked, "oom_score_adj": 5})
    assert with_privileges({**spec, "annotations": own}, nothing)["annotations"] == own
