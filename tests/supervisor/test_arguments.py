"""Bad arguments raise before anything is touched."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    STDOUT,
    BundleInvalid,
    ContainerExists,
    CreateTimeout,
    Deadlines,
    InvalidValue,
    State,
    open_supervisor,
)
from supervisor.state import MAX_NS, ContainerRecord, load
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = pytest.mark.runtimes("fake")

BAD_IDS = ["", ".", "..", "a/b", "-a", "_a", ".a", "a" * 129, "a\0", "a\n", "ä", "a b", 7, None]

BAD_STREAMS: list[Mapping[str, Any]] = [
    {"stdin": STDOUT},
    {"stdout": STDOUT},
    {"stdout": True},
    {"stderr": 3.5},
    {"stderr": -7},
    {"stdin": 9999},
    {"stdout": "/"},
    {"stdout": ""},
    {"stdin": "a\0b"},
    {"stderr": b"bytes"},
    {"stdout": ["list"]},
]


@pytest.mark.parametrize("id", BAD_IDS, ids=repr)
async def test_id(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, id: Any) -> None:
    """Create and exec refuse an id that can't be a directory's name, or isn't text."""
    async with supervisor(root) as sup:
        with pytest.raises(InvalidValue, match="container id"):
            await sup.create(id, bundle("true"))
        assert os.listdir(root) == []


async def test_create(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """Create refuses streams, labels, checkpoints and bundles that can't work."""
    bad: list[Mapping[str, Any]] = [
        *BAD_STREAMS,
        {"labels": {"a": 1}},
        {"labels": {"a": "\ud800"}},
        {"labels": {1: "a"}},
        {"checkpoint": "/no/such/directory"},
    ]
    async with supervisor(root) as sup:
        for arguments in bad:
            with pytest.raises(InvalidValue):
                await sup.create("a", bundle("true"), **arguments)
            assert os.listdir(root) == [] and list(sup) == [], arguments
        with pytest.raises(BundleInvalid):
            await sup.create("a", "/no/such/bundle")
        assert os.listdir(root) == []
        async with await sup.create("a", bundle("true")) as a:  # the name is free
            await a.start()


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
async def test_taken(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, kind: str) -> None:
    """An id whose name in the root is taken, even by an empty directory, is refused."""
    async with supervisor(root) as sup:
        path = root / "a"
        if kind == "directory":
            path.mkdir()
        elif kind == "file":
            path.write_text("mine")
        else:
            path.symlink_to("nowhere")
        before = path.lstat()
        with pytest.raises(ContainerExists):
            await sup.create("a", bundle("true"))
        assert path.lstat() == before and os.listdir(root) == ["a"]


async def test_exec(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """Programs, ids, users, directories, variables and streams that can't work are refused by
    exec."""
    bad: list[Mapping[str, Any]] = [
        *BAD_STREAMS,
        *({"id": id} for id in BAD_IDS if id is not None),
        *({"id": id} for id in ("init", "bundle", "lock", "logs", "runs", "state.json")),
        {"args": []},
        {"args": "true"},
        {"args": ["a\0b"]},
        {"args": ["\ud800"]},
        {"args": [1]},
        {"env": {"": "a"}},
        {"env": {"A=B": "a"}},
        {"env": {"A": "a\0"}},
        {"env": {"A": 1}},
        {"cwd": "relative"},
        {"cwd": "/a\0"},
        {"user": -1},
        {"user": "nobody knows"},
        {"user": (0, -1)},
        {"user": (0, 1, 2)},
        {"user": True},
        {"user": 2**32},
    ]
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        before = sorted(os.listdir(root / "a"))
        for arguments in bad:
            with pytest.raises(InvalidValue):
                await a.exec(**{"args": ["true"], **arguments})
            assert sorted(os.listdir(root / "a")) == before, arguments
            assert list(a.processes) == ["init"]
        job = await a.exec(["true"], id="job")
        with pytest.raises(InvalidValue, match="job"):
            await a.exec(["true"], id="job")
        assert (await job.wait()).code == 0
        assert (a.state, a.status) == (State.RUNNING, None)


@pytest.mark.parametrize("grace", [-1, math.nan, -math.inf])
async def test_stop(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, grace: float
) -> None:
    """A grace that is no time is refused by stop before anything is sent or written."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        before = (root / "a/state.json").read_bytes()
        with pytest.raises(InvalidValue, match="grace"):
            await a.stop(grace=grace)
        assert (root / "a/state.json").read_bytes() == before
        assert (a.state, a.status) == (State.RUNNING, None)


NO_SIGNALS = [-1, 65, 999, 10**30, "SIGINT", "TERM", "15", 15.0, True, None]


@pytest.mark.parametrize("number", [0, -1, 65, 10**30, "SIGNONE", "", "65", 15.0, True, None])
async def test_stop_by_no_signal(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, number: Any
) -> None:
    """A stop refuses an invalid signal before anything is sent or written."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        before = (root / "a/state.json").read_bytes()
        with pytest.raises(InvalidValue, match="'a': ask_with must be a signal"):
            await a.stop(0, ask_with=number)
        assert (root / "a/state.json").read_bytes() == before
        assert (a.state, a.status) == (State.RUNNING, None)


async def test_send_no_signal(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """`send_signal` refuses an invalid signal; 0 is valid, and does nothing."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        for number in NO_SIGNALS:
            with pytest.raises(InvalidValue, match="'a': number must be a signal"):
                a.send_signal(number)  # type: ignore[arg-type]
        a.send_signal(0)
        assert (a.state, a.status) == (State.RUNNING, None)


@pytest.mark.parametrize(
    "options",
    [
        {"cgroup_parent": parent}
        for parent in ("", "relative", "/", "/a/", "/a//b", "/a/../b", "/./a", "/a\0b")
    ]
    + [{"creates_at_once": 0}, {"creates_at_once": -1}],
    ids=repr,
)
async def test_open(root: Path, choice: Any, options: Mapping[str, Any]) -> None:
    """What open_supervisor can't work with is refused before the root is made."""
    with pytest.raises(InvalidValue):
        async with open_supervisor(root, **{"runtime": choice.runtime(), **options}):
            raise AssertionError("it was opened")
    assert not root.exists()


async def test_root(supervisor: OpenSupervisor, workdir: Path) -> None:
    """A root that is no directory, or that others may write to, is refused and left alone."""
    file = workdir / "file"
    file.write_text("mine")
    shared = workdir / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workdir / "socket"))
        for bad in (file, shared, workdir / "socket", file / "below", "", "a\0b", "a\nb"):
            with pytest.raises(InvalidValue):
                async with supervisor(bad):
                    raise AssertionError("it was opened")
    assert file.read_text() == "mine" and os.listdir(shared) == []


@pytest.mark.parametrize(
    "seconds", [0, -1, math.nan, -math.inf, "5", None, True, pytest.param(10**400, id="huge")]
)
@pytest.mark.parametrize("name", ["create", "start", "call", "cleanup", "kill", "shim", "recovery"])
def test_deadlines(name: str, seconds: Any) -> None:
    """A deadline that is no time above zero is refused, by name."""
    with pytest.raises(InvalidValue, match=f"deadline {name} must be above 0"):
        Deadlines(**{name: seconds})


@pytest.mark.parametrize("seconds", [math.inf, sys.float_info.max])
async def test_no_deadlines(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, seconds: float
) -> None:
    """An infinite deadline, as Trio's users write it, sets no limit: once every create failed
    then."""
    names = ("create", "start", "call", "cleanup", "kill", "shim", "drain", "recovery")
    endless = Deadlines(**dict.fromkeys(names, seconds))
    async with supervisor(root, deadlines=endless) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        assert load(ContainerRecord, str(root / "a/state.json")).timeout_ns == MAX_NS
        await box.start()
        assert (await box.run(["echo", "x"], capture_stdout=True)).stdout == b"x\n"
    async with supervisor(root, deadlines=endless) as sup:
        await sup["a"].stop(0)
        await sup["a"].delete()


async def test_a_deadline_below_a_nanosecond(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A deadline below a nanosecond expires at once, and no unrelated argument is blamed."""
    async with supervisor(deadlines=Deadlines(create=1e-12)) as sup:
        with pytest.raises(CreateTimeout):
            await sup.create("a", bundle("true"))
