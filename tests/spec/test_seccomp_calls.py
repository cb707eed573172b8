"""System calls made inside, one by one, with the real kernel."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.bundle import Bundle
from supervisor.spec import Mount
from tests.support.bundle_running import SECONDS, Runner, open_directory
from tests.support.system_calls import ALLOWED, CALLS, REFUSED, UNKNOWN, source

EPERM, ENOSYS = 1, 38
KEYCTL = {"x86_64": 250, "i686": 288}


@pytest.fixture(scope="module")
def probe() -> Iterator[Path]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here: install gcc and libc6-dev")
    with open_directory() as directory:
        (directory / "probe.c").write_text(source())
        command = [
            compiler,
            "-O1",
            "-w",
            "-static",
            "-o",
            directory / "probe",
            directory / "probe.c",
        ]
        subprocess.run(command, check=True, timeout=SECONDS)
        yield directory / "probe"


def made(runner: Runner, busybox: Path, probe: Path, **keywords: object) -> dict[str, int]:
    """Run the probe; return the result of each call, by the call's text."""
    bundle = Bundle.from_rootfs(
        busybox,
        ["/dev/probe"],
        mounts=[Mount(probe, "/dev/probe")],
        **keywords,  # type: ignore[arg-type]
    )
    lines = [line.rsplit(" ", 1) for line in runner.output(bundle).splitlines()]
    return {CALLS[int(what)] if what.isdigit() else what: int(said) for what, said in lines}


def calls(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip()}


def test_what_the_default_profile_answers(runner: Runner, busybox: Path, probe: Path) -> None:
    """Seventy calls are refused that open the kernel or the host, and what programs need isn't."""
    said = made(runner, busybox, probe)
    assert len(said) > 80
    for call, errno in said.items():
        if call in calls(REFUSED):
            assert errno == EPERM, call
        elif call in calls(UNKNOWN):
            assert errno == ENOSYS, call
        elif call in calls(ALLOWED):
            assert errno not in (EPERM, ENOSYS), call


def test_it_is_the_filter_that_refuses(runner: Runner, busybox: Path, probe: Path) -> None:
    """Without the filter, most of these calls reach the kernel, also the one for a namespace."""
    said = made(runner, busybox, probe, seccomp="unconfined")
    reached = {call for call in calls(REFUSED) if said.get(call, EPERM) != EPERM}
    assert len(reached) > 25
    assert {"unshare(0)", "keyctl(0, -3, 0)", 'open_tree(-1, "", 0)'} <= reached
    assert said["clone3(0, 0)"] != ENOSYS


def test_calls_of_32_bits(runner: Runner, busybox: Path, probe: Path) -> None:
    """A program can't avoid the filter with the calls of an older processor."""
    said = made(runner, busybox, probe)
    if said.get("old getpid") != 0:
        pytest.skip("this kernel has no calls of 32 bits")
    assert said["old socketcall"] == -ENOSYS
    assert said["old socket"] == said["old unshare"] == said["old mount"] == -EPERM


def test_more_capabilities_allow_more_calls(runner: Runner, busybox: Path, probe: Path) -> None:
    """A container with more capabilities may make the calls of these capabilities, and no
    others."""
    said = made(runner, busybox, probe, capabilities=["SYS_CHROOT", "cap_sys_ptrace"])
    assert said['chroot("/nonexistent")'] not in (EPERM, ENOSYS)
    assert said["kcmp(1, 1, 0, 0, 0)"] not in (EPERM, ENOSYS)
    assert said["unshare(0)"] == EPERM
    assert said["clone3(0, 0)"] == ENOSYS


def test_the_session_keyring_is_its_own(runner: Runner, busybox: Path, probe: Path) -> None:
    """Where keyctl is allowed, a container has a session keyring that no other has."""
    library = ctypes.CDLL(None)
    get, session = 0, -3  # KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING
    hosts = library.syscall(KEYCTL.get(os.uname().machine, 219), get, session, 0)
    found = [
        made(runner, busybox, probe, seccomp="unconfined")["session keyring"] for _ in range(2)
    ]
    assert min(found) > 0
    assert len({hosts, *found}) == 3
