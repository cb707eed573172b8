"""Files that can't be understood: their container is set aside, and the others load."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor import Cause, ContainerExists, ContainerNotFound, Source, State
from tests.conftest import MakeBundle, OpenSupervisor
from tests.failures.conftest import NothingLeft
from tests.failures.helpers import end, pid_in, shim_of, state_of

pytestmark = pytest.mark.runtimes("fake")


def _with(**changes: Any) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **changes}).encode()

    return damage


def _without(key: str) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        return json.dumps({k: v for k, v in json.loads(data).items() if k != key}).encode()

    return damage


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _constant(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: text


Damage = Callable[[bytes], bytes]
damages = {
    "truncated": (_truncated, "JSON"),
    "empty": (_constant(b""), "JSON"),
    "zeros": (_constant(bytes(400)), "JSON"),
    "not UTF-8": (_constant(b"\xff\xfe"), "UTF-8"),
    "a list": (_constant(b"[]"), "object"),
    "nested": (_constant(b"[" * 100_000), ""),
    "newer": (_with(version=99), "newer"),
    "another id": (_with(id="b"), "'b'"),
    "another root": (_with(root="/elsewhere"), "/elsewhere"),
    "a stranger's cgroup": (_with(cgroup="/system.slice"), "/system.slice"),
    "a number for text": (_with(runtime=7), "runtime"),
    "text for a number": (_with(timeout="7"), "timeout"),
    "no runtime": (_without("runtime"), "runtime"),
}


async def _leave_two(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    async with supervisor(root) as sup:
        for name in ("a", "b"):
            await (await sup.create(name, bundle("sleep", "60"))).start()


async def _check_aside(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, word: str
) -> None:
    """Check that ``a`` is set aside, untouched, and that ``b`` is as if nothing had been."""
    process, shim = pid_in(root / "a/init"), shim_of(root / "a/init")
    async with supervisor(root) as sup:
        assert (list(sup), list(sup.broken)) == (["b"], ["a"])
        broken = sup.broken["a"]
        assert (broken.id, broken.path) == ("a", str(root / "a")) and word in broken.reason
        with pytest.raises(ContainerNotFound, match="broken"):
            sup["a"]
        with pytest.raises(ContainerExists, match="broken") as caught:
            await sup.create("a", bundle("true"))
        assert broken.reason in str(caught.value)
        job = await sup["b"].exec(["true"])
        assert (await job.wait()).code == 0
    assert [state_of(pid) in ("S", "R") for pid in (process, shim)] == [True, True]


async def _delete_all(supervisor: OpenSupervisor, root: Path) -> None:
    async with supervisor(root) as sup:
        assert (list(sup), dict(sup.broken)) == (["a", "b"], {})
        for box in sup.values():
            await box.delete(force=True)


@pytest.mark.parametrize("name", damages)
async def test_state(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    name: str,
    nothing_left: NothingLeft,
) -> None:
    """A state.json that can't be understood sets its container aside, with the reason."""
    damage, word = damages[name]
    await _leave_two(supervisor, bundle, root)
    path = root / "a/state.json"
    sound = path.read_bytes()
    damaged = damage(sound)
    path.write_bytes(damaged)
    await _check_aside(supervisor, bundle, root, word)
    assert path.read_bytes() == damaged
    path.write_bytes(sound)
    await _delete_all(supervisor, root)
    await nothing_left()


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
async def test_no_state_file(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, kind: str
) -> None:
    """A state.json that isn't there, or is no file, sets its container aside too."""
    await _leave_two(supervisor, bundle, root)
    path = root / "a/state.json"
    path.rename(root / "kept")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    await _check_aside(supervisor, bundle, root, "state.json")
    if kind == "directory":
        path.rmdir()
    (root / "kept").rename(path)  # over the fifo
    await _delete_all(supervisor, root)


@pytest.mark.parametrize("name", ["truncated", "zeros", "a list"])
async def test_process_record(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, name: str
) -> None:
    """The same for the process.json of an init."""
    damage, _ = damages[name]
    await _leave_two(supervisor, bundle, root)
    path = root / "a/init/process.json"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    await _check_aside(supervisor, bundle, root, "process.json")
    path.write_bytes(sound)
    await _delete_all(supervisor, root)


@pytest.mark.parametrize("damage", [_truncated, _constant(b""), _with(version=99)])
async def test_result(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, damage: Damage
) -> None:
    """The same for the result.json of an init that has ended."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sh", "-c", "exit 3"))
        await a.start()
        await a.wait()
    path = root / "a/init/result.json"
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    async with supervisor(root) as sup:
        assert list(sup) == [] and "result.json" in sup.broken["a"].reason
    path.write_bytes(sound)
    async with supervisor(root) as sup:
        assert (await sup["a"].wait()).code == 3
        await sup["a"].delete()


@pytest.mark.parametrize("file", ["process.json", "result.json"])
async def test_exec(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, file: str) -> None:
    """An exec whose files can't be understood is set aside alone, and goes with its container."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["sh", "-c", "exit 5"], id="job")
        while job.status is None:
            await job._ended.wait()
    (root / "a/job" / file).write_bytes(b"rubbish")
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (list(a.processes), a.state, dict(sup.broken)) == (["init"], State.RUNNING, {})
        await a.delete(force=True)
        assert not (root / "a").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"rubbish",
        b"0 0",
        b"300 0 1 0",
        b"137 8 1 0",
        b"0 0 1 7",
        b"-1 0 1 0",
        b"\0" * 64,
        b"0 0 1 0\n1 0 1 0\n",
        b"9" * 5000,
    ],
)
async def test_exit_status(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, text: bytes
) -> None:
    """An exitStatus that can't be understood is an unknown end that says so, and stays one."""
    await _leave_one(supervisor, bundle, root)
    (root / "a/init/exitStatus").write_bytes(text)
    for _ in range(2):
        async with supervisor(root) as sup:
            status = await sup["a"].wait()
            assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
            assert status.why is not None and "can't be read" in status.why
    async with supervisor(root) as sup:
        await sup["a"].delete()


@pytest.mark.parametrize(("text", "code"), [(b"7", 7), (b"143\n", 143), (b" 0 \n", 0)])
async def test_lone_integer(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, text: bytes, code: int
) -> None:
    """A lone integer in exitStatus is taken as an exit code."""
    await _leave_one(supervisor, bundle, root)
    (root / "a/init/exitStatus").write_bytes(text)
    async with supervisor(root) as sup:
        assert (await sup["a"].wait()).code == code
        await sup["a"].delete()


async def _leave_one(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """Leave a container ``a``, whose shim and process die with nobody there."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    end(shim_of(root / "a/init"), pid_in(root / "a/init"))


async def test_strangers_in_the_root(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Files and directories that aren't containers are left alone, and nothing is said of them."""
    root.mkdir(mode=0o711)
    (root / "notes.txt").write_text("mine")
    (root / ".hidden").mkdir()
    (root / "lost+found").mkdir()
    async with supervisor(root) as sup:
        assert list(sup) == []
        assert list(sup.broken) == ["lost+found"]
        async with await sup.create("a", bundle("true")) as a:
            await a.start()
    assert (root / "notes.txt").read_text() == "mine" and (root / ".hidden").is_dir()
