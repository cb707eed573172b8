"""A program that can't be run gives the same error, whichever program was to run it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    Bundle,
    ContainerPool,
    GateFailed,
    Mount,
    ProcessFailed,
    ProgramNotExecutable,
    ProgramNotFound,
    RuntimeFailed,
    State,
    run_container,
)
from supervisor.container import _unrun
from supervisor.rootfs import LiveTree
from supervisor.system import look_at
from supervisor.system._pid1 import is_copy
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until, with_hook
from tests.support.leaks import wait_for

pytestmark = pytest.mark.rootless

# what is run, its kind, the system's number, a part of the message
CASES: list[tuple[str, type[GateFailed], int, str]] = [
    ("/no/such", ProgramNotFound, errno.ENOENT, "/no/such"),
    ("nowhere", ProgramNotFound, errno.ENOENT, "nowhere"),
    ("/p/dangling", ProgramNotFound, errno.ENOENT, "dangling"),
    ("/p/script/x", ProgramNotFound, errno.ENOTDIR, "Not a directory"),
    ("/p/directory", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("directory", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/p/plain", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/noexec/true", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/p/text", ProgramNotExecutable, errno.ENOEXEC, "Exec format error"),
    ("/p/empty", ProgramNotExecutable, errno.ENOEXEC, "Exec format error"),
    ("/p/foreign", ProgramNotExecutable, errno.ENOEXEC, "Exec format error"),
    ("/p/orphan", ProgramNotFound, errno.ENOENT, "/no/interpreter"),
    ("orphan", ProgramNotFound, errno.ENOENT, "/no/interpreter"),
    ("/p/dynamic", ProgramNotFound, errno.ENOENT, "/no/loader"),
    ("/dev/null", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/dev/stdin", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/dev/fd/1", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/proc/thread-self/fd/2", ProgramNotExecutable, errno.EACCES, "Permission denied"),
    ("/proc/self/fd/99", ProgramNotFound, errno.ENOENT, "No such file"),
]
_OF_THE_KERNEL = ("/no/interpreter", "/no/loader")  # a gate doesn't see which one is missing

Make = Callable[..., Bundle]


def elf(*, machine: int, loader: bytes) -> bytes:
    """Return the beginning of a 64-bit program: enough for the kernel to refuse the file."""
    order = "<" if struct.pack("=H", 1) == b"\1\0" else ">"
    kind = b"\x7fELF\2" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
    head = struct.pack(f"{order}HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    entry = struct.pack(f"{order}IIQQQQQQ", 3, 4, 120, 0, 0, len(loader), len(loader), 1)
    return kind + head + entry + loader


def own_machine() -> int:
    """Return the number of this machine in an ELF program."""
    with open("/proc/self/exe", "rb") as file:
        return int(struct.unpack_from("=H", file.read(20), 18)[0])


@pytest.fixture
def programs(workdir: Path) -> Path:
    """A directory of programs that can't be run, and one that can."""
    place = workdir / "programs"
    place.mkdir()
    (place / "directory").mkdir()
    (place / "dangling").symlink_to("/nowhere")
    contents = {
        "script": b"#!/bin/sh\nexit 1\n",
        "text": b"echo no magic\n",
        "empty": b"",
        "orphan": b"#!/no/interpreter\n",
        "dynamic": elf(machine=own_machine(), loader=b"/no/loader\0"),
        "foreign": elf(machine=190, loader=b"/bin/sh\0"),
    }
    for name, content in contents.items():
        (place / name).write_bytes(content)
        (place / name).chmod(0o755)
    (place / "plain").write_bytes(b"#!/bin/sh\n")
    return place


@pytest.fixture
def make(bundle: MakeBundle, programs: Path, workdir: Path) -> Make:
    """Make a bundle that has the programs on /p, in PATH, and others where nothing may be
    executed."""
    shutil.copy("/bin/busybox", workdir / "true")
    forbidden = Mount(str(workdir), "/noexec").to_json()
    forbidden["options"].append("noexec")

    def make(*args: str, **options: Any) -> Bundle:
        mounts = [Mount(str(programs), "/p"), forbidden]
        return bundle(*args, env={"PATH": "/bin:/p"}, mounts=mounts, **options)

    return make


def check(error: GateFailed, case: tuple[str, type[GateFailed], int, str]) -> None:
    """Check an error: the kind, and what an OSError of that kind contains."""
    name, kind, number, said = case
    assert type(error) is kind, error
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (number, os.strerror(number), name)
    assert (error.what, error.name) == ("program", name)
    assert said in str(error) and error.container is not None and error.container in str(error)


def test_a_runtime_runs_a_copy_of_itself(workdir: Path) -> None:
    """A runtime that runs a copy of itself, from an overlay or from memory, isn't taken for an
    exec's program: once a failure to run that program was then never reported."""
    original, copy = "/bin/busybox", workdir / "sleep"
    shutil.copy(original, copy)
    with subprocess.Popen([copy, "60"]) as process:
        try:
            assert is_copy(process.pid, original)
            assert not is_copy(process.pid, __file__) and not is_copy(process.pid, "/no/such")
        finally:
            process.kill()


async def test_create_and_exec(
    supervisor: OpenSupervisor, make: Make, root: Path, workdir: Path
) -> None:
    """Create or start, and exec, raise the same error, and nothing is left.

    It was once RuntimeFailed in the runtime's words, or an exit with status 1.
    """
    async with supervisor(root) as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for case in CASES:
            with pytest.raises(GateFailed) as caught:
                await run_container(make(case[0]), supervisor=sup)
            check(caught.value, case)
            with pytest.raises(GateFailed) as caught:
                await on.exec([case[0]])
            check(caught.value, case)
            if caught.value.__cause__ is not None:
                assert isinstance(caught.value.__cause__, RuntimeFailed)
            await until(lambda: list(on.processes) == ["init"], "nothing is left of the exec")
        assert [name for name in os.listdir(root) if name != ".runtime"] == ["on"]
        assert not [name for name in os.listdir(root / "on") if name.startswith("exec-")]
        for program in ("/p/script", "script"):  # a program that can be run exits on its own
            with pytest.raises(ProcessFailed, match="exited 1"):
                await on.run([program])
            with pytest.raises(ProcessFailed, match="exited 1"):
                await run_container(make(program), supervisor=sup)


async def test_behind_init(supervisor: OpenSupervisor, make: Make) -> None:
    """The same error is raised behind our own init: once it was an exit with status 127 or 126."""
    async with supervisor() as sup:
        for case in CASES:
            with pytest.raises(GateFailed) as caught:
                await run_container(make(case[0], init=True), supervisor=sup)
            check(caught.value, case)
        for code in (126, 127):
            done = make("sh", "-c", f"exit {code}", init=True)
            status = (await run_container(done, supervisor=sup, check=False)).status
            assert status.code == code


async def test_pool(make: Make, choice: Any) -> None:
    """The gate of a pooled container raises the same error."""
    async with ContainerPool(make("true"), size=2, runtime=choice.runtime()) as pool:
        for name, kind, number, said in CASES:
            with pytest.raises(GateFailed) as caught:
                await pool.run([name])
            known = said if said not in _OF_THE_KERNEL else "No such file"
            check(caught.value, (name, kind, number, known))


async def test_state_after_start(supervisor: OpenSupervisor, make: Make) -> None:
    """A container whose program the kernel refused has been started, and has ended."""
    async with supervisor() as sup, await sup.create("a", make("/p/text")) as box:
        with pytest.raises(ProgramNotExecutable):
            await box.start()
        assert box.state is State.STOPPED and (await box.wait()).code in (1, 255)  # runc 1.3


async def test_rights(supervisor: OpenSupervisor, make: Make, programs: Path) -> None:
    """A file that the user may not execute, or a directory that the user may not enter, is
    distinguished from a missing one."""
    (programs / "script").chmod(0o700)
    locked = programs / "locked"
    locked.mkdir(0o700)
    shutil.copy(programs / "script", locked / "script")
    async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for path in ("/p/script", "/p/locked/script"):
            with pytest.raises(ProgramNotExecutable, match="Permission denied"):
                await run_container(make(path, user=1000), supervisor=sup)
            with pytest.raises(ProgramNotExecutable, match="Permission denied"):
                await on.exec([path], user=(1000, 1000))


async def test_directory(supervisor: OpenSupervisor, make: Make) -> None:
    """A working directory that is missing, and can't be made, is reported as that."""
    ways: list[tuple[str, int]] = [
        ("/p/none/x", errno.ENOENT),
        ("/proc/none/x", errno.ENOENT),
        ("/p/text", errno.ENOTDIR),
    ]
    async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for path, number in [*ways, ("/nowhere", errno.ENOENT)]:
            with pytest.raises(ProgramNotFound, match="working directory") as caught:
                await on.exec(["true"], cwd=path)
            assert (caught.value.what, caught.value.errno) == ("cwd", number)
            assert caught.value.filename == path
        for path, number in ways:
            with pytest.raises(ProgramNotFound, match="working directory") as caught:
                await run_container(make("true", cwd=path), supervisor=sup)
            assert (caught.value.what, caught.value.errno) == ("cwd", number)


async def test_the_host(supervisor: OpenSupervisor) -> None:
    """The look also explains the host's programs, whose directories are links and mounts."""
    async with supervisor() as sup:
        bundle = Bundle.from_host(["sleep", "600"], writable="overlay")
        async with await sup.create("on", bundle) as on:
            await on.start()
            for name in ("/bin/nowhere", "nowhere", "/usr/bin/nowhere"):
                with pytest.raises(ProgramNotFound):
                    await on.exec([name])
                with pytest.raises(ProgramNotFound):
                    await run_container(Bundle.from_host([name]), supervisor=sup)
            with pytest.raises(ProgramNotExecutable, match="directory"):
                await run_container(Bundle.from_host(["/usr/bin"]), supervisor=sup)
            assert (await on.run(["true"])).status.code == 0


async def test_links_lead_nowhere_else(
    supervisor: OpenSupervisor, make: Make, programs: Path, workdir: Path
) -> None:
    """A link of an image leads to a path inside the container, never to a file of the host."""
    (workdir / "hosts").write_text("#!/bin/sh\n")
    (workdir / "hosts").chmod(0o755)
    (programs / "absolute").symlink_to(workdir / "hosts")
    (programs / "up").symlink_to("../" * 20 + str(workdir / "hosts"))
    (programs / "round").symlink_to("round")
    async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for name in ("absolute", "up", "round"):
            with pytest.raises(ProgramNotFound):
                await on.exec([f"/p/{name}"])
            with pytest.raises(ProgramNotFound):
                await run_container(make(f"/p/{name}"), supervisor=sup)


async def test_another_reason(supervisor: OpenSupervisor, make: Make) -> None:
    """A runtime that fails for another reason is quoted: nothing is made up."""
    async with supervisor() as sup:
        for program in ("true", "/p/script"):
            with pytest.raises(RuntimeFailed):
                await sup.create("a", with_hook(make(program), "createRuntime", "false"))


async def test_what_only_the_program_sees(supervisor: OpenSupervisor, make: Make) -> None:
    """A path through the program's own /proc directory, which can't be looked at afterwards, isn't
    explained.

    A plain file at such a path was once reported as missing.
    """
    async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
        await on.start()
        for path in ("/proc/self/root/p/plain", "/proc/1/root/p/plain", "/proc/self/environ"):
            with pytest.raises(RuntimeFailed, match=r"[pP]ermission denied|not executable"):
                await on.exec([path])
            with pytest.raises(RuntimeFailed, match=r"[pP]ermission denied|not executable"):
                await run_container(make(path), supervisor=sup)
        path = "/proc/self/root/p/plain"
        with pytest.raises(ProcessFailed) as caught:
            await run_container(make(path, init=True), supervisor=sup)
        assert caught.value.returncode == 126
        assert (await on.run(["/proc/self/root/bin/true"])).returncode == 0


async def test_an_access_control_list(
    supervisor: OpenSupervisor, make: Make, programs: Path
) -> None:
    """A file whose access control list says more than the mode counts as one that runs: the program
    exits on its own."""
    script = programs / "script"
    script.chmod(0o700)
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 5, 1000), (4, 0, nobody), (16, 5, nobody), (32, 0, nobody)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(script, "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no access control lists")
    async with supervisor() as sup:
        done = await run_container(make("/p/script", user=1000), supervisor=sup, check=False)
        assert done.status.code == 1


async def test_nobody_waits_for_the_look(
    supervisor: OpenSupervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that may wait for ever in a mount of the container is given up, and nothing is
    explained."""
    released = threading.Event()

    def hold_up(*_: object) -> None:
        released.wait()
        raise OSError

    monkeypatch.setattr(_unrun, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(LiveTree, "find", hold_up)
    try:
        async with supervisor() as sup, await sup.create("on", make("sleep", "600")) as on:
            await on.start()
            for _ in range(6):  # more than there are threads for the looks
                with trio.fail_after(30), pytest.raises(RuntimeFailed):
                    await on.exec(["/no/such"])
    finally:
        released.set()


@pytest.mark.runtimes("runc", "crun")
async def test_one_that_is_reaped_between_two_looks(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is reaped between two looks isn't taken for one that runs on: once a failure
    to run the program was then never reported."""

    def after_its_end(pid: int) -> object:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its shim has reaped it")
        return look_at(pid)

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        assert not box.init._task.end.is_near()
        with monkeypatch.context() as patch:
            patch.setattr("supervisor.process._ending.look_at", after_its_end)
            assert box.init._task.end.is_near()
