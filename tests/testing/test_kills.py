"""Whatever ends a test run, nothing is left: no process, cgroup or directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.cgroups import Hierarchies
from supervisor.directories._temporary import PLACE
from tests.support.leaks import STRANGERS, descendants, wait_for
from tests.testing.inner import INI, OPTIONS, Run, with_runtime

PATIENCE_SECONDS = 30.0

SLEEPER = '''
import os, pathlib, trio
from supervisor import open_supervisor

HERE = pathlib.Path(__file__).parent

def ready():
    (HERE / "new").write_text(str(os.getpid()))
    (HERE / "new").rename(HERE / "ready")

async def test_in_trio(container_pool, supervisor_runtime, host_bundle):
    """A pool in its thread, and a container of our own."""
    async with open_supervisor(runtime=supervisor_runtime) as sup:
        async with await sup.create("mine", host_bundle, args=["sleep", "1000"]) as box:
            await box.start()
            ready()
            await trio.sleep_forever()

def test_in_a_thread(container_pool):
    """The main thread waits for a program in the pool's thread."""
    ready()
    container_pool.run_sync(["sleep", "1000"])
'''


@attrs.frozen
class Victim:
    """A pytest run whose test waits for the end of the run.

    Attributes:
        process: pytest itself.
        worker: the pid of the process that runs the test: the same, or xdist's.
        directory: where pytest runs, with the temporary files in ``tmp``.
        cgroups: the directories of the containers' cgroups.
        before: the pids of other descendants of ours.
    """

    process: subprocess.Popen[bytes]
    worker: int
    directory: Path
    cgroups: frozenset[str]
    before: frozenset[int]

    def left(self) -> list[str]:
        """Return what is left of the run."""
        lines = descendants(os.getpid())
        lives = [f"{pid} {lines[pid]}" for pid in lines.keys() - self.before if alive(pid)]
        made = [str(path) for path in (self.directory / "tmp").glob("trio-supervisor-*")]
        return lives + made + [path for path in self.cgroups if os.path.exists(path)]


def alive(pid: int) -> bool:
    """Whether a process runs, and isn't just a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cgroups_of(pids: list[int]) -> Iterator[str]:
    """Yield the directories of those of our cgroups that have processes."""
    hierarchies = Hierarchies.discover()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                path = line.split(":", 2)[2]
                if path.startswith("/trio-supervisor/"):
                    yield from filter(os.path.exists, hierarchies.directories(path))


@contextlib.contextmanager
def victim(directory: Path, test: str, *options: str) -> Iterator[Victim]:
    """Run a test of the sleeper; yield the run when the test's container runs."""
    (directory / "pytest.ini").write_text(INI)
    (directory / "test_sleeper.py").write_text(SLEEPER)
    (directory / "tmp").mkdir(mode=0o711)
    command = [sys.executable, "-m", "pytest", *OPTIONS, with_runtime(), "-k", test, *options]
    before = frozenset(descendants(os.getpid()))
    environment = {**os.environ, "TMPDIR": str(directory / "tmp"), PLACE: str(directory / "tmp")}
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        ready = directory / "ready"
        wait_for(lambda: ready.exists() or process.poll() is not None, "the test", PATIENCE_SECONDS)
        assert process.poll() is None, (directory / "output").read_text()
        pids = [pid for pid in descendants(os.getpid()).keys() - before if alive(pid)]
        STRANGERS.update(pids)  # what is killed leaves its children to us
        cgroups = frozenset(cgroups_of(pids))
        yield Victim(process, int(ready.read_text()), directory, cgroups, before)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def directory(workdir: Path) -> Path:
    """Where pytest runs; user namespaces can pass through."""
    return workdir


def assert_nothing_left(victim: Victim) -> None:
    """Wait until nothing is left of a run that has ended."""
    begun = time.monotonic()
    wait_for(lambda: not victim.left(), "the end of all that it has made", PATIENCE_SECONDS)
    print(f"nothing was left after {time.monotonic() - begun:.3f} s")


TESTS = ("in_trio", "in_a_thread")


@pytest.mark.parametrize("test", TESTS)
def test_sigkill(directory: Path, test: str) -> None:
    """After SIGKILL of pytest the leash breaks: shims and keepers end everything."""
    with victim(directory, test) as run:
        run.process.kill()
        run.process.wait()
        assert_nothing_left(run)


@pytest.mark.parametrize("test", TESTS)
def test_ctrl_c(directory: Path, test: str) -> None:
    """On Ctrl-C the test is cancelled, or its wait for another thread is, and pytest reports
    that."""
    with victim(directory, test) as run:
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(PATIENCE_SECONDS) == pytest.ExitCode.INTERRUPTED
        assert_nothing_left(run)
        assert "KeyboardInterrupt" in (directory / "output").read_text()


def test_a_worker_of_xdist_crashes(directory: Path) -> None:
    """Pytest reports a crash of an xdist worker, and nothing is left."""
    with victim(directory, "in_a_thread", "-n1", "--max-worker-restart=0") as run:
        assert run.worker != run.process.pid
        os.kill(run.worker, signal.SIGKILL)
        assert run.process.wait(PATIENCE_SECONDS) == pytest.ExitCode.TESTS_FAILED
        assert_nothing_left(run)
        assert "crashed while running" in (directory / "output").read_text()


def test_sigkill_of_xdist(directory: Path) -> None:
    """A worker of a killed xdist ends at once: on its own the worker would go on for up to 15
    seconds."""
    with victim(directory, "in_trio", "-n1") as run:
        run.process.kill()
        run.process.wait()
        assert_nothing_left(run)
        _, status = os.waitpid(run.worker, os.WNOHANG)  # left to us as the parent
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


BESIDE = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(2))
async def test_it(number, supervisor, container_pool, host_bundle):
    done = await container_pool.run(["sh", "-c", "echo $PPID"])
    worker = os.environ["PYTEST_XDIST_WORKER"]
    assert f"trio-supervisor-{worker}-" in supervisor.root
    with open(pathlib.Path(__file__).parent / "roots", "a") as file:
        file.write(f"{worker} {supervisor.root} {container_pool.root}\\n")
    assert number == 0
"""


def test_workers_of_xdist_have_roots_of_their_own(inner: Run, pytester: pytest.Pytester) -> None:
    """Workers of xdist have separate roots; a worker's failed test reports its containers."""
    result = inner(BESIDE, "-n2", "--dist=each")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*--- container pool-*"])
    lines = [line.split() for line in (pytester.path / "roots").read_text().splitlines()]
    pools = {worker: {pool for who, _, pool in lines if who == worker} for worker, _, _ in lines}
    assert len({root for _, root, _ in lines}) == len(lines) == 4
    assert all(len(roots) == 1 for roots in pools.values()), "a pool per module and worker"
    assert len(set.union(*pools.values())) == 2


STOPS = """
import pytest

async def test_first(supervisor, container_pool, host_bundle):
    async with await supervisor.create("a", host_bundle, args=["sleep", "1000"]) as box:
        await box.start()
        assert False

def test_second(container_pool):
    assert False
"""


def test_stop_at_the_first_failure(
    inner: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With -x the fixtures are torn down as usual; the second test isn't run."""
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv(PLACE, str(directory))
    result = inner(STOPS, "-x")
    result.assert_outcomes(failed=1)
    assert not list(directory.glob("trio-supervisor-*"))
