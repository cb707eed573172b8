"""The pytest plugin: options, fixtures, and the containers' part in a failed test's report.

pytest loads the plugin wherever this library is installed. Tests that make no containers are left
alone. The plugin uses Hypothesis and pytest-trio if they are installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from ..observers import witness
from ._example import Example

if TYPE_CHECKING:
    from .._supervisor import Supervisor
    from ..bundle import Bundle
    from ..runtime import Runtime
    from ._shared_pool import SharedPool

HOST: Final = "host"
_EXAMPLE: Final = pytest.StashKey[Example]()
_FAILED: Final = pytest.StashKey[Example]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options, and the same options for the configuration file."""
    group = parser.getgroup("trio-supervisor")
    group.addoption(
        "--supervisor-runtime",
        metavar="NAME",
        help="the fixtures' OCI runtime: crun, runc, a path; or host, without isolation",
    )
    group.addoption(
        "--supervisor-pool-size",
        metavar="N",
        type=int,
        help="how many containers a module's pool keeps ready",
    )
    parser.addini("supervisor_runtime", "as --supervisor-runtime", default="")
    parser.addini("supervisor_pool_size", "as --supervisor-pool-size", default="4")


# ---- each test, and each example -------------------------------------------------------------


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Set a witness during a test, or during each example of a test.

    The last of all wrappers: pytest-trio has turned async tests into sync functions by then.
    """

    def begin(example: Example) -> None:
        last = item.stash.get(_EXAMPLE, None)
        if last is not None and last.failed:
            item.stash[_FAILED] = last
        example.with_specs = (item.config.getoption("verbose") or 0) > 0
        item.stash[_EXAMPLE] = example

    example = Example(named=False)
    begin(example)
    token = witness.set(example)
    try:
        with _every_example_supervised(item, begin):
            return (yield)
    except BaseExceptionGroup as group:
        _raise_interrupt(group)
        raise
    finally:
        witness.reset(token)


def _raise_interrupt(group: BaseExceptionGroup[BaseException]) -> None:
    """Turn a group that contains KeyboardInterrupt into KeyboardInterrupt.

    Nurseries raise Ctrl-C in groups, which pytest would report as a failed test.
    """
    interrupt, _ = group.split(KeyboardInterrupt)
    if interrupt is not None:
        raise KeyboardInterrupt from group


def pytest_sessionstart(session: pytest.Session) -> None:
    """Make an xdist worker end with the process that launched the worker.

    Otherwise the worker goes on with its test and containers until execnet gives up after 15
    seconds.
    """
    if hasattr(session.config, "workerinput"):
        watch = threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True)
        watch.start()


def _end_with(parent: int) -> None:
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:  # the parent has ended already
        os.kill(os.getpid(), signal.SIGKILL)
        return
    if os.getppid() == parent:
        select.select([pidfd], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _every_example_supervised(item: pytest.Item, begin: Any) -> Iterator[None]:
    """Wrap the function that Hypothesis runs for each example, while the test runs."""
    if "hypothesis" not in sys.modules:
        yield
        return
    from ._supervised import supervised  # noqa: PLC0415  (imports Hypothesis)

    with contextlib.ExitStack() as stack:
        handle: Any = getattr(getattr(item, "obj", None), "hypothesis", None)
        if hasattr(handle, "inner_test"):
            wrapped = supervised(handle.inner_test, when_begun=begin)
            stack.enter_context(_replaced(handle, "inner_test", wrapped))
        stateful = sys.modules.get("hypothesis.stateful")
        if stateful is not None:
            make = stateful.get_state_machine_test

            def make_supervised(*args: Any, **options: Any) -> Any:
                test = make(*args, **options)
                inner = test.hypothesis.inner_test
                test.hypothesis.inner_test = supervised(inner, when_begun=begin)
                return test

            stack.enter_context(_replaced(stateful, "get_state_machine_test", make_supervised))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed test's report what the containers of the test or the failing example did.

    These sections come before pytest's captured output, which is often long.
    """
    report = yield
    example = item.stash.get(_EXAMPLE, None)
    if call.when == "call" and report.failed and example is not None:
        if not example.failed:  # Hypothesis ran another example after the failing one
            example = item.stash.get(_FAILED, example)
        notes = [] if call.excinfo is None else list(_notes(call.excinfo.value))
        report.sections[:0] = [
            (title, text)
            for title, text in example.told()
            if not any(title in note for note in notes)  # else Hypothesis's notes have the text
        ]
    return report


def _notes(error: BaseException) -> Iterator[str]:
    yield from getattr(error, "__notes__", ())
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _notes(one)


# ---- fixtures --------------------------------------------------------------------------------
# Each fixture imports what it needs: most test runs with this plugin use no fixture.


@pytest.fixture(scope="session")
def supervisor_runtime(pytestconfig: pytest.Config) -> Runtime:
    """The `Runtime` that ``--supervisor-runtime`` names; by default the first that can run."""
    from ..runtime import Runtime  # noqa: PLC0415
    from .runtimes import HostRuntime  # noqa: PLC0415

    name = pytestconfig.getoption("--supervisor-runtime") or pytestconfig.getini(
        "supervisor_runtime"
    )
    return HostRuntime().runtime if name == HOST else Runtime.find(name or None)


@pytest.fixture(scope="session")
def host_bundle() -> Iterator[Bundle]:
    """A `Bundle` of the host's programs (`Bundle.from_host`); create names the program to run."""
    from ..bundle import Bundle  # noqa: PLC0415
    from ._held import held_directory  # noqa: PLC0415

    with held_directory() as path:
        yield Bundle.from_host(["true"], path=os.path.join(path, "bundle"))


@pytest.fixture(scope="module")
def pool_bundle(host_bundle: Bundle) -> Bundle:
    """The bundle of `container_pool`: override this fixture to use another bundle."""
    return host_bundle


@pytest.fixture(scope="module")
def container_pool(
    pool_bundle: Bundle, supervisor_runtime: Runtime, pytestconfig: pytest.Config
) -> Iterator[SharedPool]:
    """A `SharedPool` for each module: a fresh container for every example."""
    from ._shared_pool import SharedPool  # noqa: PLC0415

    size = pytestconfig.getoption("--supervisor-pool-size")
    size = size or int(pytestconfig.getini("supervisor_pool_size"))
    with SharedPool(pool_bundle, size=size, runtime=supervisor_runtime) as pool:
        yield pool


async def _supervisor(supervisor_runtime: Runtime) -> AsyncIterator[Supervisor]:
    """An ephemeral supervisor, for tests that pytest-trio runs."""
    from .._open import open_supervisor  # noqa: PLC0415

    async with open_supervisor(runtime=supervisor_runtime) as sup:
        yield sup


if importlib.util.find_spec("pytest_trio") is not None:
    from pytest_trio import trio_fixture  # type: ignore[import-untyped]

    supervisor: Any = trio_fixture(_supervisor)
