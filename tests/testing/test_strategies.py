"""The strategies make what the library and the runtimes accept, and shrink to short values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from supervisor import Bundle, InvalidValue, Runtime, State, open_supervisor, run_container
from supervisor.testing import strategies
from supervisor.testing.machine import Operation
from supervisor.testing.runtimes import HostRuntime
from supervisor.userns import container_root_ids
from tests.support.runtimes import Choice

FEW = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SIMPLEST = settings(database=None, derandomize=True, deadline=None, max_examples=100)
MANY = settings(FEW, max_examples=15)

SHORT: dict[Callable[[], st.SearchStrategy[Any]], str] = {
    strategies.ids: "'0'",
    strategies.exit_statuses: (
        "ExitStatus(cause=<Cause.UNKNOWN: 'unknown'>, source=<Source.INFERENCE: 'inference'>, "
        "code=None, signal=None, core_dumped=False, oom_killed=False, at_ns=None, why='')"
    ),
    strategies.process_objects: "{'args': [''], 'cwd': '/'}",
    partial(strategies.process_objects, runtime=Runtime(path="/crun")): (
        "{'args': ['true'], 'cwd': '/', "
        "'env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']}"
    ),
    strategies.specs: (
        "{'ociVersion': '1.0.2', 'process': {'args': [''], 'cwd': '/'}, "
        "'root': {'path': 'rootfs'}, 'linux': {}}"
    ),
    strategies.bundle_options: "{}",
    strategies.id_mappings: "[{'containerID': 0, 'hostID': 0, 'size': 1}]",
    strategies.operations: "Operation(verb='create', container='a', signal=None)",
    strategies.sequences_of_operations: "[]",
    strategies.terminal_sizes: "TerminalSize(columns=1, rows=1)",
}


@pytest.mark.parametrize("make", SHORT, ids=lambda make: getattr(make, "__name__", "accepted"))
def test_shrinks(make: Callable[[], st.SearchStrategy[Any]]) -> None:
    """The simplest value is short and readable."""
    assert repr(find(make(), lambda _: True, settings=SIMPLEST)) == SHORT[make]


@pytest.mark.parametrize("cls", strategies.STRATEGIES, ids=lambda cls: cls.__name__)
def test_values(cls: type) -> None:
    """Each strategy of a value makes values of its type, and shrinks to short ones."""
    make = strategies.STRATEGIES[cls]

    @MANY
    @given(make())
    def holds(value: object) -> None:
        assert isinstance(value, cls)
        repr(value)

    holds()
    simplest = find(make(), lambda _: True, settings=SIMPLEST)
    assert len(repr(simplest)) < 1000


@settings(MANY)
@given(spec=strategies.specs())
def test_specs_load(tmp_path_factory: pytest.TempPathFactory, spec: dict[str, Any]) -> None:
    """Every spec is a config.json that loads."""
    path = tmp_path_factory.mktemp("spec")
    (path / "rootfs").mkdir()
    (path / "config.json").write_text(json.dumps(spec))
    assert Bundle.load(path).spec == spec


async def _code(bundle: Bundle | Path, runtime: Runtime, cgroup_parent: str) -> int:
    async with open_supervisor(runtime=runtime, cgroup_parent=cgroup_parent) as sup:
        return (await run_container(bundle, supervisor=sup)).returncode


@pytest.mark.runtimes("fake", "runc", "crun")
def test_specs_are_accepted(
    choice: Choice, rootfs: Path, workdir: Path, cgroup_parent: str
) -> None:
    """A runtime runs each spec that it is said to accept."""
    runtime = choice.runtime()
    path = workdir / "bundle"
    path.mkdir()

    @FEW
    @given(spec=strategies.specs(runtime=runtime))
    def runs(spec: dict[str, Any]) -> None:
        spec["root"]["path"] = str(rootfs)
        (path / "config.json").write_text(json.dumps(spec))
        assert trio.run(_code, path, runtime, cgroup_parent) == 0

    runs()


@pytest.mark.runtimes("fake", "crun")
def test_bundles_are_accepted(choice: Choice, cgroup_parent: str) -> None:
    """A runtime runs the bundles that are made for it, and each bundle is removed with its
    example."""
    runtime = choice.runtime()
    paths: set[str] = set()

    @FEW
    @given(bundle=strategies.bundles(["sh", "-c", "exit 0"], runtime=runtime))
    def runs(bundle: Bundle) -> None:
        with bundle:
            paths.add(bundle.path)
            assert trio.run(_code, bundle, runtime, cgroup_parent) == 0

    runs()
    assert paths and not any(Path(path).exists() for path in paths)


@MANY
@given(strategies.id_mappings())
def test_id_mappings(maps: list[dict[str, int]]) -> None:
    """The container's root is mapped, and no id is mapped twice on either side."""
    linux = {"namespaces": [{"type": "user"}], "uidMappings": maps, "gidMappings": maps}
    assert container_root_ids({"linux": linux}) == (maps[0]["hostID"],) * 2
    for key in ("containerID", "hostID"):
        ranges = sorted((entry[key], entry[key] + entry["size"]) for entry in maps)
        assert all(ends <= begins for (_, ends), (begins, _) in pairwise(ranges))


@settings(FEW, max_examples=4)
@given(strategies.sequences_of_operations(containers=["a", "b"], max_size=8))
def test_legal_operations_can_be_done(sequence: list[Operation]) -> None:
    """Each operation that is said to be legal succeeds, and leads to the state that was said."""

    async def perform() -> None:
        bundle = Bundle.from_host(["sh"])
        states: dict[str, State | None] = {}
        async with open_supervisor(runtime=HostRuntime().runtime) as sup:
            for operation in sequence:
                await operation.perform(sup, bundle)
                states[operation.container] = operation.after(states.get(operation.container))
                found = {id: sup[id].state for id in sup}
                assert found == {id: state for id, state in states.items() if state is not None}

    trio.run(perform)


def test_long_legal_sequences() -> None:
    """Legal sequences are as long as asked for, with every operation among them."""
    long = strategies.sequences_of_operations()
    wanted = {"create", "start", "exec", "signal", "wait", "delete"}
    search = settings(SIMPLEST, max_examples=5000)
    found = find(long, lambda some: wanted <= {each.verb for each in some}, settings=search)
    assert len(found) <= len(wanted) + 1


@pytest.mark.parametrize("told", [("run", "a"), ("signal", "a"), ("start", "a", 9)])
def test_operations_that_cannot_be(told: tuple[Any, ...]) -> None:
    """An impossible operation is refused when it is made."""
    with pytest.raises(InvalidValue):
        Operation(*told)


def test_hypothesis_is_optional() -> None:
    """The library and the rest of its testing package work without Hypothesis; the modules that
    need Hypothesis say so."""
    script = """
import sys
sys.modules["hypothesis"] = None
import supervisor, supervisor.testing
from supervisor.testing import HostRuntime, leak_check
try:
    import supervisor.testing.strategies
except ImportError as error:
    assert "pip install 'trio-supervisor[testing]'" in str(error), error
else:
    raise AssertionError("it must say what is missing")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_hypothesis_is_not_imported() -> None:
    """To import the library costs no import of Hypothesis."""
    script = "import sys, supervisor.testing; assert 'hypothesis' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
