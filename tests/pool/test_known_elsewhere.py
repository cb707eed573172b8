"""What another supervisor, or the next one, knows of a pooled container, and what an init
reports."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from supervisor import PIPE, Bundle, Container, ContainerPool, GateFailed
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import OpenPool
from tests.support.leaks import STRANGERS, descendants
from tests.support.runtimes import Choice, needs_root

pytestmark = pytest.mark.runtimes("runc", "crun")
SOURCES = Path(__file__).parents[2]
GREEDY = ["sh", "-c", "read line; x=a; while :; do x=$x$x; done"]

PROGRAM = """
import sys, trio
from supervisor import PIPE, ContainerPool, open_supervisor

async def main(runtime, parent, root, bundle, *args):
    async with open_supervisor(root, runtime=runtime, cgroup_parent=parent) as sup:
        async with ContainerPool(bundle, supervisor=sup, size=1) as pool:
            async with pool.take(args, env={"A": "1"}, cwd="/tmp", stdin=PIPE) as box:
                print(box.id, flush=True)
                await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


def taken_and_left(
    bundle: Bundle, choice: Choice, cgroup_parent: str, root: Path, args: list[str]
) -> str:
    """Let a program take a container of a pool, and kill that program; return the container's
    id."""
    words = [choice.name, cgroup_parent, str(root), bundle.path, *args]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, cwd=SOURCES, text=True
    ) as program:
        assert program.stdout is not None
        id = program.stdout.readline().strip()
        STRANGERS.update(descendants(program.pid))
        program.kill()
    assert id
    return id


async def seen(box: Container) -> tuple[tuple[str, ...], bytes | None]:
    done = await box.run(["sh", "-c", "echo $A; pwd"], capture_stdout=True)
    return box.init.args, done.stdout


@pytest.mark.parametrize("init", [False, True])
async def test_an_onlooker_sees_the_program(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, init: bool
) -> None:
    """An onlooker sees the taken program, also if the onlooker came before the take, and execs have
    that program's environment: once these were the gate, and the bundle's environment."""
    words = ("/dev/init", "--", "sleep", "60") if init else ("sleep", "60")
    async with supervisor(root) as one:
        async with ContainerPool(bundle("true", init=init), size=1, supervisor=one) as pool:
            await pool.wait_full()
            async with supervisor(root) as before:
                (early,) = before.values()
                assert early.init.args[-1] == "true"
                async with pool.take(["sleep", "60"], env={"A": "1"}, cwd="/tmp") as box:
                    async with supervisor(root) as after:
                        for other in (box, early, after[box.id]):
                            assert other.id == box.id
                            assert await seen(other) == (words, b"1\n/tmp\n")


async def test_the_next_one_knows_the_program(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    cgroup_parent: str,
    root: Path,
) -> None:
    """The next supervisor knows the taken program, which is on disk when it runs, though the taker
    was killed."""
    id = taken_and_left(bundle("true"), choice, cgroup_parent, root, ["sleep", "60"])
    async with supervisor(root) as sup:
        assert await seen(sup[id]) == (("sleep", "60"), b"1\n/tmp\n")
        for box in list(sup.values()):
            await box.delete(force=True)


@needs_root
async def test_the_next_one_knows_why_it_ended(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    cgroup_parent: str,
    root: Path,
) -> None:
    """The next supervisor knows an out-of-memory kill behind an init: once the adopter took that
    for an exit with 137."""
    spec = bundle("true", init=True, memory_bytes=16 << 20)
    id = taken_and_left(spec, choice, cgroup_parent, root, GREEDY)
    async with supervisor(root) as sup:
        box = sup[id]
        assert box.stdin is not None
        await box.stdin.send_all(b"go\n")
        with trio.fail_after(30):
            status = await box.wait()
        assert (status.signal, status.oom_killed) == (signal.SIGKILL, True)
        for each in list(sup.values()):
            await each.delete(force=True)


@needs_root
async def test_out_of_memory_behind_an_init(pool: OpenPool) -> None:
    """An out-of-memory kill behind an init is reported as without one."""
    async with pool(spec={"init": True, "memory_bytes": 16 << 20}, size=1) as opened:
        async with opened.take(GREEDY, stdin=PIPE) as box:
            assert box.stdin is not None
            await box.stdin.send_all(b"go\n")
            assert str(await box.wait()) == "killed by SIGKILL, out of memory"


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("program", "error"),
    [("/no/such", errno.ENOENT), ("nowhere", errno.ENOENT), ("/tmp", errno.EACCES)],
)
async def test_a_missing_program(pool: OpenPool, program: str, error: int, init: bool) -> None:
    """A missing program raises the same error behind an init: once it was an exit with 127, since
    the gate had become the init."""
    async with pool(spec={"init": init}, size=1) as opened:
        with pytest.raises(GateFailed) as raised:
            async with opened.take([program]):
                pass
        told = raised.value
        assert (told.what, told.errno, told.name) == ("program", error, program)


async def test_the_gates_report_ends_with_the_exec(pool: OpenPool) -> None:
    """The gate's report ends at the exec: the init keeps no pipe open, and a taker doesn't wait for
    the program's end."""
    script = "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done; echo none"
    async with pool(spec={"init": True}, size=1) as opened:
        assert (await opened.run(["sh", "-c", script])).stdout == b"none\n"
        with trio.fail_after(30):
            async with opened.take(["sleep", "600"]) as box:
                assert (await box.stop()).status.signal is signal.SIGTERM
