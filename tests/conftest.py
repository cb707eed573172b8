"""Fixtures: real and fake runtimes, roots of their own, and a check for leaks after each test."""

from __future__ import annotations

import functools
import inspect
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings

from supervisor import Bundle, Runtime, Supervisor, open_supervisor
from supervisor.directories._temporary import PLACE
from supervisor.testing import leak_check
from tests.support import leaks, users
from tests.support.containers import cgroups_of, left, living, until
from tests.support.runtimes import REAL, Choice, choose

pytest_plugins = [
    "pytester",
    "tests.support.arguments",
    "tests.support.children",
    "tests.support.forker",
    "tests.support.homes",
    "tests.support.victim",
]

OpenSupervisor = Callable[..., AbstractAsyncContextManager[Supervisor]]
MakeBundle = Callable[..., Bundle]
NothingLeft = Callable[[], Awaitable[None]]

TEST_SECONDS = 100
_CLOCKS = {"autojump_clock", "mock_clock"}

_REAL_RAN = "ran with a real runtime"

# Where time matters, the test says so: the machine may be busy with something else.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says how far the searches go."""
    parser.addoption(
        "--long", action="store_true", help="let the searches for failures go ten times as far"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RealRuntimes(), "real-runtimes")
    # A shell's background job ignores these, and so would all that we start.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, own)
    if os.environ.get("PYTEST_XDIST_WORKER"):  # each test looks at the mounts below the directory
        tempfile.tempdir = tempfile.mkdtemp(prefix="ts-worker-")
        os.chmod(tempfile.tempdir, 0o1777)
        os.environ["TMPDIR"] = tempfile.tempdir
    os.environ[PLACE] = tempfile.gettempdir()  # of the run's own


def pytest_unconfigure() -> None:
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each runtime that the test names: real ones by default, or also the fake."""
    if "choice" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("runtimes")
        names = marker.args if marker is not None else REAL
        rootless = metafunc.definition.get_closest_marker("rootless") is not None
        metafunc.parametrize(
            "choice",
            [choose(name, rootless=rootless) for name in names],
            ids=list(names),
            indirect=True,
        )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Cancel a test that hangs: unlike a time-out from outside, that lets the test clean up."""
    test = getattr(item, "obj", None)
    own = _CLOCKS & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("timeout")
    if own or not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def bounded(**fixtures: object) -> None:
        with trio.fail_after(TEST_SECONDS):
            await test(**fixtures)

    item.obj = bounded  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    choice = getattr(item, "callspec", None) and item.callspec.params.get("choice")  # type: ignore[attr-defined]
    if call.when == "call" and isinstance(choice, Choice) and choice.real:
        outcome.get_result().user_properties.append((_REAL_RAN, choice.name))


class RealRuntimes:
    """Which real runtimes tests have passed with: in this process, or in the workers of xdist.

    The reports of a worker's tests come to the controller with their properties.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed:
            names = [str(value) for key, value in report.user_properties if key == _REAL_RAN]
            self.names.update(names)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail the run if a real runtime was required and none could be tested."""
        wanted = os.environ.get("SUPERVISOR_REQUIRE_RUNTIME", "")
        worker = hasattr(session.config, "workerinput")
        if wanted and not worker and exitstatus == pytest.ExitCode.OK and not self.names:
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line(
                    "no real OCI runtime could run: see the reasons of the skipped tests",
                    red=True,
                )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def choice(request: pytest.FixtureRequest) -> Choice:
    """Whatever runtime the test runs with now."""
    chosen: Choice = request.param
    if chosen.obstacle is not None:
        pytest.skip(chosen.obstacle)
    return chosen


@pytest.fixture
def runtime(choice: Choice) -> Runtime:
    """The runtime that the test runs with now."""
    return choice.runtime()


@pytest.fixture
def workdir() -> Iterator[Path]:
    """A directory that user namespaces can pass through, unlike pytest's own."""
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="ts-test-")))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def somebody() -> Iterator[pwd.struct_passwd]:
    """An ordinary user with subordinate ids."""
    try:
        with users.somebody() as user:
            yield user
    except users.NobodyHasThem as error:
        pytest.skip(str(error))


@pytest.fixture
def root(workdir: Path) -> Path:
    """A root for a durable supervisor; the test must leave no container inside."""
    return workdir / "root"


@pytest.fixture
def cgroup_parent() -> Iterator[str]:
    """A cgroup parent of the test's own, which must be empty at the end of the test."""
    parent = f"/ts-test-{os.getpid()}-{secrets.token_hex(4)}"
    yield parent
    left = leaks.cgroup_left(parent)
    assert not left, f"cgroups left: {left}"


@pytest.fixture
def nothing_left(root: Path, cgroup_parent: str) -> NothingLeft:
    """Fail unless no directory, cgroup or living process is left of any container."""
    before = living(os.getpid())

    async def check() -> None:
        assert left(root) == []
        assert cgroups_of(cgroup_parent) == []
        await until(
            lambda: living(os.getpid()) <= before,
            lambda: f"no process is left: {living(os.getpid()) - before}",
        )

    return check


@pytest.fixture
def supervisor(cgroup_parent: str, choice: Choice) -> OpenSupervisor:
    """`open_supervisor` with the test's runtime and cgroup parent."""

    def opener(root: Path | None = None, **options: Any) -> AbstractAsyncContextManager[Supervisor]:
        options.setdefault("runtime", choice.runtime())
        return open_supervisor(root, cgroup_parent=cgroup_parent, **options)

    return opener


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A root filesystem with a static busybox."""
    path = Path(tempfile.mkdtemp(prefix="ts-rootfs-"))
    path.chmod(0o755)
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (apt-get install busybox-static)")
    for name in ("bin", "proc", "dev", "sys", "tmp", "run", "etc"):
        (path / name).mkdir()
    shutil.copy(busybox, path / "bin/busybox")
    for name in (
        "sh",
        "sleep",
        "true",
        "false",
        "cat",
        "echo",
        "kill",
        "stty",
        "dd",
        "ls",
        "env",
    ):
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def bundle(rootfs: Path, workdir: Path, choice: Choice) -> MakeBundle:
    """Make a bundle on the busybox root: ``bundle("sleep", "60", memory_bytes=...)``."""

    def make(*args: str, **options: Any) -> Bundle:
        path = workdir / f"bundle-{secrets.token_hex(4)}"
        return Bundle.from_rootfs(rootfs, list(args), path=path, **options)

    return make


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves descriptors, processes, zombies or mounts behind.

    We are the subreaper for the test's time, so that what a killed supervisor leaves stays
    our descendant. What was left to us that way is reaped here; children of our own aren't.
    """
    check = leak_check(
        cgroup_parent=None,
        mounts_below=[tempfile.gettempdir()],
        temporary=False,
        subreaper=True,
        reap=leaks.reap_strangers,
    )
    with check:
        yield
