"""A container with very many processes and descriptors holds up only its own operations."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from supervisor import Bundle, Mount, State
from supervisor.cgroups import Hierarchies
from tests.conftest import OpenSupervisor

pytestmark = pytest.mark.runtimes("runc", "crun")

LATE_SECONDS = 0.15  # once seconds
SOURCE = """
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    signal(SIGCHLD, SIG_IGN);
    for (int n = argc > 2 ? atoi(argv[2]) : 0; n > 0; n--) open("/dev/null", O_RDONLY);
    for (int n = atoi(argv[1]); n > 0; n--)
        if (fork() == 0) for (;;) pause();
    write(1, "made", 4);
    if (argc > 3) return 0;
    for (;;) pause();
}
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``many PROCESSES DESCRIPTORS [leave]``: makes them, says so, and stays or leaves."""
    if not Hierarchies.discover().usable:
        pytest.skip("cgroups can't be made here")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("many") / "many"
    source = path.with_suffix(".c")
    source.write_text(SOURCE)
    subprocess.run([compiler, "-w", "-static", "-o", str(path), str(source)], check=True)
    return path


class Lateness:
    """How late a task came that wanted to run every few milliseconds, as far as we caused that.

    Attributes:
        worst: in seconds; without the time in which Trio's thread could have run, and other
            programs had all processors (kernel Documentation/scheduler/sched-stats).
    """

    worst = 0.0

    async def tick(self) -> None:
        while True:
            begun, queued = trio.current_time(), queued_seconds()
            await trio.sleep(0.005)
            late = trio.current_time() - begun - 0.005
            self.worst = max(self.worst, late - (queued_seconds() - queued))


def queued_seconds() -> float:
    """Return how long this thread has waited for a processor."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


@contextlib.asynccontextmanager
async def lateness() -> AsyncIterator[Lateness]:
    async with trio.open_nursery() as nursery:
        late = Lateness()
        nursery.start_soon(late.tick)
        yield late
        nursery.cancel_scope.cancel()


def spec(rootfs: Path, many: Path, workdir: Path, *args: str) -> Bundle:
    mounts = [Mount(str(many), "/many")]
    return Bundle.from_rootfs(rootfs, list(args), path=workdir / "b", init=True, mounts=mounts)


async def test_many_holders(
    supervisor: OpenSupervisor, rootfs: Path, many: Path, workdir: Path
) -> None:
    """The look for the holders of an output doesn't hold up the tasks: once a thousand processes
    with a thousand descriptors each did for 7 to 9 seconds."""
    async with supervisor() as sup:
        box = await sup.create("box", spec(rootfs, many, workdir, "sleep", "600"))
        await box.start()
        async with lateness() as late:
            done = await box.run(["/many", "1000", "1000", "leave"], capture_stdout=True)
            assert done.stdout == b"made"
            assert 2 <= len(done.held) <= 65
            assert (done.held[0].stream, done.held[-1].pid) == ("stdout", None)
            await box.delete(force=True)
        assert late.worst < LATE_SECONDS


async def test_a_kill_of_many(
    supervisor: OpenSupervisor, rootfs: Path, many: Path, workdir: Path
) -> None:
    """`Container.kill` kills all processes of many, and returns at once; a task does the rest."""
    async with supervisor() as sup:
        box = await sup.create("box", spec(rootfs, many, workdir, "/many", "5000", "0"), stdout=-1)
        await box.start()
        assert box.stdout is not None and await box.stdout.receive_some(4) == b"made"
        async with lateness() as late:
            await trio.sleep(0.01)
            box.kill()
            await box.wait()
            await box.delete()
        assert box.state is State.DELETED
        assert late.worst < LATE_SECONDS
