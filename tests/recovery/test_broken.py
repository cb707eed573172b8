"""Files that can't be understood: their container is set aside, and the others load."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import Cause, ContainerExists, ContainerNotFound, Source, State, Supervisor
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import end, pid_in, shim_of, state_of

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
_OF_ANY = ("JSON", "UTF-8", "object", "")  # what may be wrong with any record
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


async def _leave(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, names: Sequence[str]
) -> None:
    """Leave running containers of these names."""

    async def run(sup: Supervisor, name: str) -> None:
        await (await sup.create(name, bundle("sleep", "60"))).start()

    async with supervisor(root) as sup, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(run, sup, name)


async def _check_aside(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, words: Mapping[str, str]
) -> None:
    """Check that all but ``good`` are set aside, untouched, and that the ids are in use."""
    pids = [find(root / name / "init") for name in words for find in (pid_in, shim_of)]
    async with supervisor(root) as sup:
        assert (list(sup), sorted(sup.broken)) == (["good"], sorted(words))
        for name, word in words.items():
            broken = sup.broken[name]
            assert (broken.id, broken.path) == (name, str(root / name))
            assert word in broken.reason, broken
            with pytest.raises(ContainerNotFound, match="broken"):
                sup[name]
            with pytest.raises(ContainerExists, match="broken") as caught:
                await sup.create(name, bundle("true"))
            assert broken.reason in str(caught.value)
        job = await sup["good"].exec(["true"])
        assert (await job.wait()).code == 0
    assert {state_of(pid) for pid in pids} <= {"S", "R"}


async def _delete_all(supervisor: OpenSupervisor, root: Path, count: int) -> None:
    async with supervisor(root) as sup, trio.open_nursery() as nursery:
        assert (len(sup), dict(sup.broken)) == (count, {})
        for box in sup.values():
            nursery.start_soon(partial(box.delete, force=True))


@pytest.mark.parametrize("file", ["state.json", "init/process.json"])
async def test_state(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    file: str,
    nothing_left: NothingLeft,
) -> None:
    """Containers with garbage records, each garbage in another way, are set aside, and the others
    load."""
    known = [name for name in damages if file == "state.json" or damages[name][1] in _OF_ANY]
    names = {f"a{n}": damages[name] for n, name in enumerate(known)}
    await _leave(supervisor, bundle, root, [*names, "good"])
    sound = {name: (root / name / file).read_bytes() for name in names}
    for name, (damage, _) in names.items():
        (root / name / file).write_bytes(damage(sound[name]))
    await _check_aside(supervisor, bundle, root, {name: word for name, (_, word) in names.items()})
    for name, (damage, _) in names.items():
        assert (root / name / file).read_bytes() == damage(sound[name])
        (root / name / file).write_bytes(sound[name])
    await _delete_all(supervisor, root, len(names) + 1)
    await nothing_left()


async def test_looked_at_again(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    nothing_left: NothingLeft,
) -> None:
    """A broken container that was removed or repaired by hand is no longer broken: once it was
    until the next open."""
    await _leave(supervisor, bundle, root, ["a"])
    state = root / "a/state.json"
    sound = state.read_bytes()
    state.write_bytes(b"rubbish")
    async with supervisor(root) as sup:
        assert await sup.adopt() == [] and list(sup.broken) == ["a"]
        (root / "a").rename(workdir / "away")
        assert await sup.adopt() == [] and list(sup.broken) == []
        (workdir / "away").rename(root / "a")
        assert await sup.adopt() == [] and list(sup.broken) == ["a"]
        state.write_bytes(sound)
        [a] = await sup.adopt()
        assert (a.id, a.state, dict(sup.broken)) == ("a", State.RUNNING, {})
        await a.delete(force=True)
    await nothing_left()


async def test_no_state_file(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A state.json that is missing, or is no file, sets the container aside too."""
    names = ("missing", "directory", "fifo")
    await _leave(supervisor, bundle, root, [*names, "good"])
    for name in names:
        (root / name / "state.json").rename(root / f".{name}")
    (root / "directory/state.json").mkdir()
    os.mkfifo(root / "fifo/state.json")
    await _check_aside(supervisor, bundle, root, dict.fromkeys(names, "state.json"))
    (root / "directory/state.json").rmdir()
    for name in names:
        (root / f".{name}").rename(root / name / "state.json")  # over the fifo
    await _delete_all(supervisor, root, 4)


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
    """An exec whose files can't be understood is set aside alone, and is deleted with its
    container."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["sh", "-c", "exit 5"], id="job")
        while job.status is None:
            await job._task.life.wait_over()
    (root / "a/job" / file).write_bytes(b"rubbish")
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (list(a.processes), a.state, dict(sup.broken)) == (["init"], State.RUNNING, {})
        await a.delete(force=True)
        assert not (root / "a").exists()


async def test_exit_status(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A garbage exitStatus is an unknown end that says so, and stays one."""
    texts = [
        b"rubbish",
        b"0 0",
        b"300 0 1 0",
        b"137 8 1 0",
        b"0 0 1 7",
        b"-1 0 1 0",
        bytes(64),
        b"0 0 1 0\n1 0 1 0\n",
        b"9" * 5000,
    ]
    await _leave_dead(supervisor, bundle, root, texts)
    for _ in range(2):
        async with supervisor(root) as sup:
            for box in sup.values():
                status = await box.wait()
                assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
                assert status.why is not None and "can't be read" in status.why
    await _delete_all(supervisor, root, len(texts))


async def test_lone_integer(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A lone integer in exitStatus is taken as an exit code."""
    await _leave_dead(supervisor, bundle, root, [b"7", b"143\n", b" 0 \n"])
    async with supervisor(root) as sup:
        assert [(await box.wait()).code for box in sup.values()] == [7, 143, 0]
    await _delete_all(supervisor, root, 3)


async def _leave_dead(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, texts: Sequence[bytes]
) -> None:
    """Leave containers whose shim and process died without a supervisor, with such an
    exitStatus."""
    names = [f"a{n}" for n in range(len(texts))]
    await _leave(supervisor, bundle, root, names)
    for name, text in zip(names, texts, strict=True):
        end(shim_of(root / name / "init"), pid_in(root / name / "init"))
        (root / name / "init/exitStatus").write_bytes(text)


async def test_strangers_in_the_root(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Files and directories that aren't containers are left alone, without a message."""
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
