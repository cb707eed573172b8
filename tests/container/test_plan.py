"""All that is needed to launch a container is on disk: what was planned is read back the same."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor import PIPE, STDOUT, LogFile, StateCorrupt
from supervisor.bundle import Gate, gate_path
from supervisor.container import _create as create_module
from supervisor.container._plan import Plan
from supervisor.state import _id_claims
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

MAPS = [(0, 1_879_048_192, 65_536)]

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"labels": {"a": "b"}, "stop_signal": "INT", "stop_grace": 3.5}),
    "layer": ({"writable": "overlay"}, {}),
    "layer of a size": ({"writable": "overlay", "layer_bytes": 1 << 20}, {"stdin": PIPE}),
    "log": ({}, {"stdout": LogFile(max_bytes=65_536, files=3)}),
    "other streams": ({}, {"stdin": "/dev/zero", "stdout": PIPE, "stderr": STDOUT}),
    "terminal": ({}, {"terminal": (132, 43), "env": {"A": "1"}}),
    "ids": ({"userns": MAPS}, {"stdin": PIPE}),
    "ids of its own": ({"userns": "auto"}, {"stdin": PIPE}),
    "ids and a layer": ({"userns": MAPS, "writable": "overlay"}, {"stdin": PIPE}),
    "init": ({"init": True}, {"cwd": "/tmp", "user": 5, "rlimits": {"NOFILE": 64}}),
    "other seccomp": ({}, {"capabilities": ["NET_RAW"], "seccomp": "unconfined"}),
}


@pytest.fixture(autouse=True)
def claims(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of the test's own."""
    monkeypatch.setattr(_id_claims, "DIRECTORY", str(workdir / "ids"))


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Collect the plans of what is created."""
    made: list[Plan] = []
    plan_container = create_module.plan_container

    def planned(*args: Any, **options: Any) -> Plan:
        made.append(plan_container(*args, **options))
        return made[-1]

    monkeypatch.setattr(create_module, "plan_container", planned)
    return made


def told(plan: Plan) -> dict[str, Any]:
    """Return what a launch takes from a plan, with JSON's types for JSON values."""
    spec = json.loads(json.dumps(plan.spec))
    return {
        **attrs.asdict(attrs.evolve(plan, spec={}), recurse=False),
        "spec": spec,
        "stdio": plan.stdio,
        "gated": plan.gated,
        "rootfs": plan.rootfs,
        "shim_options": plan.shim_options,
        "preserved_fds": plan.preserved_fds,
    }


@contextlib.contextmanager
def gate() -> Iterator[Gate]:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        yield Gate(gate_path(), write_fd)
    finally:
        os.close(read_fd)
        os.close(write_fd)


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_read_back_after_an_adoption(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, plans: list[Plan], kind: str
) -> None:
    """An adopted container's plan is read back whole: a layer's lower directory and a log's bounds
    were once only in the maker's memory."""
    spec, options = KINDS[kind]
    async with supervisor(root) as sup:
        await sup.create("a", bundle("sleep", "60", **spec), **options)
    async with supervisor(root) as sup, sup["a"] as box:
        again = Plan.load(box._core.layout)
        assert told(again) == told(plans[0])
        assert again.record == box._core.record
        assert again.init == box.init.record
        assert again.unrepeatable == ()


@pytest.mark.parametrize("init", [False, True])
async def test_a_pooled_ones(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, plans: list[Plan], init: bool
) -> None:
    """A pooled container's plan says that the gate's pipe is lost; all else is read back."""
    with gate() as stands_before:
        async with supervisor(root) as sup:
            made = bundle("true", init=init)
            await sup.create("a", made, stdin=PIPE, gate=stands_before)
    async with supervisor(root) as sup, sup["a"] as box:
        again = Plan.load(box._core.layout)
        assert told(again) == told(plans[0])
        assert again.gated and again.unrepeatable == ("gate",)


async def test_an_open_file(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path
) -> None:
    """An open file belongs to its program: the number on record means nothing later."""
    async with supervisor(root) as sup:
        with open(workdir / "out", "wb") as file:
            await sup.create("a", bundle("true"), stdout=file, stderr=PIPE)
    async with supervisor(root) as sup, sup["a"] as box:
        assert Plan.load(box._core.layout).unrepeatable == ("stdout",)


async def test_a_layer_that_is_not_on_record(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Where an earlier version didn't record what is under a layer, no plan can be read back."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("true", writable="overlay"))
        state = Path(box._core.layout.state)
        known = json.loads(state.read_text())
        state.write_text(json.dumps({**known, "shimOptions": []}))
        with pytest.raises(StateCorrupt, match="isn't on record"):
            Plan.load(box._core.layout)
        state.write_text(json.dumps(known))
        await box.delete(force=True)
