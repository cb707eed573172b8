"""Every end is reported exactly: exit codes, signals, faults, from init and exec."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from supervisor import Bundle, Cause, Container, ExitStatus, Supervisor
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shares_host_pids
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), pytest.mark.rootless]

AT_ONCE = 4
NOT_FATAL = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}
FATAL = [number for number in range(1, 65) if number not in NOT_FATAL]
DIE = """
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1) kill(getpid(), atoi(argv[1]));
    else *(volatile int *)0 = 1;
    return 0;
}
"""


@pytest.fixture(scope="module")
def die(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program ``die N``, which kills itself by signal N, or by a fault without N.

    (busybox's shell won't do: that shell ignores SIGQUIT.)
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (apt-get install gcc)")
    source = tmp_path_factory.mktemp("die") / "die.c"
    source.write_text(DIE)
    subprocess.run([compiler, "-static", "-o", rootfs / "bin/die", source], check=True)


async def run_one(sup: Supervisor, id: str, spec: Bundle) -> ExitStatus:
    async with await sup.create(id, spec) as box:
        await box.start()
        return await box.wait()


@pytest.fixture
def codes(pytestconfig: pytest.Config) -> range:
    """Every fifth exit code, or all: the shim reports all alike, and its own tests try all."""
    return range(0, 256, 1 if pytestconfig.getoption("--long") else 5)


async def test_all_codes_from_init(
    supervisor: OpenSupervisor, bundle: MakeBundle, codes: range
) -> None:
    """Exit codes 0 to 255 come back exact from init."""
    got: dict[int, int | None] = {}
    todo = iter(codes)
    async with supervisor() as sup:

        async def worker() -> None:
            for code in todo:
                status = await run_one(sup, f"c{code}", bundle("sh", "-c", f"exit {code}"))
                got[code] = status.code

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(worker)
    assert got == {code: code for code in codes}


async def exec_all(box: Container, commands: dict[int, list[str]]) -> dict[int, ExitStatus]:
    """Run each command as an exec, some at once."""
    got: dict[int, ExitStatus] = {}
    todo = iter(commands.items())

    async def worker() -> None:
        for number, command in todo:
            process = await box.exec(command)
            got[number] = await process.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)
    return got


async def test_all_codes_from_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, codes: range
) -> None:
    """Exit codes 0 to 255 come back exact from an exec."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        got = await exec_all(box, {code: ["sh", "-c", f"exit {code}"] for code in codes})
    assert {n: status.code for n, status in got.items()} == {n: n for n in codes}


@pytest.mark.usefixtures("die")
async def test_fatal_signals_from_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Every fatal signal comes back exact from an exec, with the shell's convention as int."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        got = await exec_all(box, {number: ["die", str(number)] for number in FATAL})
    wrong = {n: str(status) for n, status in got.items() if status.signal != n}
    assert not wrong
    assert all(int(status) == 128 + n and status.code is None for n, status in got.items())


@needs_root
@pytest.mark.usefixtures("die")
async def test_fatal_signals_from_host_pid_init(
    supervisor: OpenSupervisor, bundle: MakeBundle, pytestconfig: pytest.Config
) -> None:
    """Every fatal signal comes back exact from an init in the host's pid namespace."""
    numbers = FATAL[:: 1 if pytestconfig.getoption("--long") else 4]
    got: dict[int, int | None] = {}
    async with supervisor() as sup:
        for number in numbers:
            spec = shares_host_pids(bundle("die", str(number)))
            got[number] = (await run_one(sup, f"s{number}", spec)).signal
    assert got == {number: number for number in numbers}


@pytest.mark.usefixtures("die")
async def test_killed_and_faulting_pid_1(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """SIGKILL and a real fault, the only two that kill a pid 1, come back exact from one."""
    async with supervisor() as sup:
        assert (await run_one(sup, "fault", bundle("die"))).signal is signal.SIGSEGV
        async with await sup.create("kill", bundle("sleep", "600")) as box:
            await box.start()
            box.kill()
            status = await box.wait()
            assert (status.signal, status.cause) == (signal.SIGKILL, Cause.SIGNALLED)


@needs_root
async def test_processes_that_init_leaves(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """In the host's pid namespace, what init leaves running goes with the container."""
    spec = shares_host_pids(bundle("sh", "-c", "sleep 600 & exit 3"))
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        assert (await box.wait()).code == 3
