"""Unwanted output: closing the stream ends the writer, and removes an exec that has ended."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import LOG, PIPE, STDOUT, AlreadyAttached, Container, Process, ProcessEnded
from supervisor.container import _core
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shim_of, state_of, until
from tests.support.streams import everything, rest

YES = {
    "stdout": "while :; do echo y || exit 2; done",
    "stderr": "while :; do echo y >&2 || exit 2; done",
}
"""Programs that write for ever: a pid 1 isn't ended by SIGPIPE, and fails with EPIPE."""

WORDS = ["sh", "-c", "echo words"]


def shims(box: Container) -> int:
    """Return how many shims of the container's execs run."""
    root = os.path.dirname(box._core.layout.path)
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/cwd").startswith(f"{root}/{box.id}/exec-")
    return found


def directories(box: Container) -> list[str]:
    """Return the directories of the container's execs."""
    return [name for name in os.listdir(box._core.layout.path) if name.startswith("exec-")]


async def start_writing(box: Container, inside: bool, stream: str) -> Process:
    """Start a container and give the init, or an exec inside, that writes for ever."""
    await box.start()
    if not inside:
        return box.init
    return await box.exec(["sh", "-c", YES[stream]], **{stream: PIPE})


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("inside", [False, True], ids=["init", "exec"])
async def test_closing_it_ends_the_writer(
    supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool, stream: str
) -> None:
    """Closing the output ends the writer, as with a trio.Process; the writer once waited for ever
    for room in a fifo that the shim held."""
    spec = bundle("sleep", "60") if inside else bundle("sh", "-c", YES[stream])
    told = {} if inside else {stream: PIPE}
    async with supervisor() as sup, await sup.create("a", spec, **told) as box:
        process = await start_writing(box, inside, stream)
        output = getattr(process, stream)
        assert await output.receive_some(2) == b"y\n"
        await output.aclose()
        with trio.fail_after(10):
            assert (await process.wait()).returncode == (-signal.SIGPIPE if inside else 2)
        await output.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await output.receive_some()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("inside", [False, True], ids=["init", "exec"])
async def test_what_comes_next_finds_it_closed(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    inside: bool,
    stream: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write after the close fails: aclose waits until the shim has closed its end. Without that
    wait, 1 (runc) to 4 (crun) of 20 programs answered once more, and then waited for ever."""
    monkeypatch.setattr("supervisor.stdio._fifo_end._OBEYED_SECONDS", 60)
    answers = ["sh", "-c", f"cat >&{1 if stream == 'stdout' else 2} || exit 2"]
    spec = bundle("sleep", "60") if inside else bundle(*answers)
    told: Any = {"stdin": PIPE, stream: PIPE}
    async with supervisor(root) as sup:
        async with await sup.create("a", spec, **({} if inside else told)) as box:
            await box.start()
            process = await box.exec(answers, id="e", **told) if inside else box.init
            assert process.stdin is not None
            shim = shim_of(root / "a" / process.id)
            os.kill(shim, signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                closed = trio.Event()

                async def close() -> None:
                    await getattr(process, stream).aclose()
                    closed.set()

                nursery.start_soon(close)
                fifo = root / "a" / process.id / stream
                await until(lambda: not fifo.exists(), "nobody opens it any more")
                await trio.sleep(0.02)
                early = closed.is_set()
                os.kill(shim, signal.SIGCONT)
            assert not early
            await process.stdin.send_all(b"y\n")
            with trio.fail_after(10):
                assert (await process.wait()).returncode == 2


async def test_closing_one_leaves_the_other(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """stdout's end isn't stderr's; but with STDOUT they are one."""
    script = "trap '' PIPE; read x; echo out; echo err >&2"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        for stderr in (PIPE, STDOUT):
            process = await box.exec(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=stderr)
            assert process.stdout is not None and process.stdin is not None
            await process.stdout.aclose()
            with contextlib.suppress(trio.BrokenResourceError):
                await process.stdin.send_all(b"\n")
            if process.stderr is not None:
                assert b"err" in await everything(process.stderr)
            with trio.fail_after(10):
                await process.wait()


async def test_it_is_still_closed_for_the_next_one(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An output that was closed stays closed for the next supervisor; the other one is open."""
    script = "echo err >&2; sleep 600"
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sh", "-c", script), stdout=PIPE, stderr=PIPE)
        await box.start()
        assert box.stdout is not None and box.stderr is not None
        await box.stdout.aclose()
        left = box.stderr
    await left.aclose()  # the supervisor has closed it: no line to the shim
    async with supervisor(root) as sup, sup["a"] as box:
        assert box.stdout is None and box.stderr is not None
        assert await box.stderr.receive_some() == b"err\n"


async def test_an_adopted_one(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The supervisor that adopted the container owns the output; an observer closes only its own
    end."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sh", "-c", YES["stdout"]), stdout=PIPE)
        await box.start()
    async with supervisor(root) as sup, sup["a"] as box:
        async with supervisor(root) as other:
            theirs = other["a"].stdout
            assert other["a"].foreign and theirs is not None
            await theirs.aclose()
            assert (root / "a/init/stdout").exists()
        assert box.stdout is not None
        for _ in range(100):
            assert await box.stdout.receive_some(1 << 16)
        assert box.status is None
        await box.stdout.aclose()
        with trio.fail_after(10):
            await box.wait()


# ---- an exec that has ended ------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [{}, {"stdout": PIPE}, {"stdout": PIPE, "stderr": PIPE}, {"stdout": LOG}, {"terminal": True}],
    ids=str,
)
async def test_done_with_when_its_end_is_known(
    supervisor: OpenSupervisor, bundle: MakeBundle, told: dict[str, Any]
) -> None:
    """When wait() returns the exec's id is free, though the output is unread; the shim once
    stayed."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        for _ in range(10):
            process = await box.exec(WORDS, id="e", **told)
            assert (await process.wait()).code == 0
            assert list(box.processes) == ["init"]
        assert os.listdir(box._core.layout.path).count("e") == 0


async def test_copied_output(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> None:
    """The exec's id is free after a copied output too: the copier ends with the last writer."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        for _ in range(10):
            process = await box.exec(WORDS, id="e", stdout=workdir / "out")
            await process.wait()
            assert list(box.processes) == ["init"]
    assert (workdir / "out").read_bytes() == b"words\n" * 10


async def test_unread_output_is_in_hand(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Output of an exec that is gone can still be read from the process, also from a terminal."""
    content = ["sh", "-c", "head -c 60000 /dev/zero"]
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        piped = await box.exec(content, stdout=PIPE)
        shown = await box.exec(content, terminal=True)
        for process in (piped, shown):
            await process.wait()
        assert shims(box) == 0 and directories(box) == []
        assert await everything(piped.stdout) == bytes(60000)
        async with await shown.attach() as terminal:
            assert await rest(terminal) == bytes(60000) and terminal.dropped == 0
        with pytest.raises(ProcessEnded):
            await shown.attach()
        with pytest.raises(ProcessEnded):
            shown.resize(10, 10)


async def test_more_than_a_terminal_keeps(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Dropped output of a terminal is counted, as with an earlier attachment."""
    script = "stty -onlcr; head -c 200000 /dev/zero"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["sh", "-c", script], terminal=True)
        await process.wait()
        async with await process.attach() as terminal:
            assert len(await rest(terminal)) + terminal.dropped == 200000


async def test_who_is_attached_reads_on(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """wait() returns at once, an attached client gets all output, and no second client gets in."""
    script = "echo go; read x; head -c 60000 /dev/zero; exit 3"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["sh", "-c", script], id="e", terminal=True)
        async with await process.attach() as terminal:
            await terminal.send_all(b"\n")
            with trio.fail_after(10):
                assert (await process.wait()).code == 3
            with contextlib.suppress(AlreadyAttached, ProcessEnded):
                await process.attach()
            assert (await rest(terminal)).endswith(bytes(60000))
        await until(lambda: list(box.processes) == ["init"], "an exec that is done with")


async def test_others_write_on(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """wait() returns when the program ends; the log is written as long as another process
    writes."""
    script = "(until [ -e /dev/go ]; do sleep 0.01; done; echo late) & echo early"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["sh", "-c", script], id="e", stdout=LOG)
        with trio.fail_after(1):
            assert (await process.wait()).code == 0
        assert "e" in box.processes
        await box.run(["sh", "-c", ": >/dev/go"])
        await until(lambda: "e" not in box.processes, "an exec that is done with")
        assert [record.data async for record in process.logs()] == [b"early", b"late"]


async def test_nobody_waits(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the execs that no task waits for only some are kept: each takes a descriptor and a
    directory."""
    monkeypatch.setattr(_core, "_KEPT_EXECS", 3)
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        first = await box.exec(["sh", "-c", "echo first; exit 7"], stdout=PIPE)
        await until(lambda: first.status is not None, "its end")
        for _ in range(5):
            await box.exec(["true"])
        await until(lambda: len(box.processes) == 1 + 3, "as many as are kept")
        assert first.id not in box.processes
        assert (await first.wait()).code == 7
        assert await everything(first.stdout) == b"first\n"


async def test_the_next_one_hears_the_end(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The end of an exec without a waiter, and the unread output, are for the next supervisor."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "600"))
        await box.start()
        for id in ("piped", "shown"):
            how = {"stdout": PIPE} if id == "piped" else {"terminal": True}
            process = await box.exec(["sh", "-c", "echo words; exit 3"], id=id, **how)
            await until(lambda it=process: it.status is not None, "its end")
    async with supervisor(root) as sup, sup["a"] as box:
        piped, shown = box.processes["piped"], box.processes["shown"]
        for process in (piped, shown):
            assert (await process.wait()).code == 3
        assert list(box.processes) == ["init"]
        assert await everything(piped.stdout) == b"words\n"
        async with await shown.attach() as terminal:
            assert await rest(terminal) == b"words\r\n"


async def test_taken_over(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """An observer that has waited and takes the container over later is done with the exec then."""
    async with supervisor(root) as owner:
        box = await owner.create("a", bundle("sleep", "600"))
        await box.start()
        await box.exec(["sh", "-c", "read x; echo words"], id="e", stdin=PIPE, stdout=PIPE)
        async with supervisor(root) as other:
            theirs = other["a"].processes["e"]
            assert theirs.stdin is not None
            ended = trio.Event()

            async def wait() -> None:
                await theirs.wait()
                ended.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                ours = box.processes["e"].stdin
                assert ours is not None
                await ours.send_all(b"\n")
                await ended.wait()
            shim = shim_of(root / "a/e")
            await wait_all_tasks_blocked(0.1)
            assert state_of(shim) not in ("", "Z"), "who only looks on has let it go"
            assert "e" in box.processes  # ours: no task has waited for the exec here
            box._core.let_go()
            for process in box.processes.values():
                if process._task.lock is not None:
                    process._task.lock.release()
            await other.adopt()
            assert not other["a"].foreign
            await until(lambda: "e" not in other["a"].processes, "an exec that is done with")
            assert await everything(theirs.stdout) == b"words\n"
            await other["a"].delete(force=True)


async def test_a_shim_that_is_stopped(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A stopped shim doesn't keep wait() for long."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(WORDS, id="e", stdout=PIPE)
        await until(lambda: process.status is not None, "its end")
        shim = shim_of(Path(box._core.layout.path, "e"))
        os.kill(shim, signal.SIGSTOP)
        try:
            with trio.fail_after(5):
                assert (await process.wait()).code == 0
        finally:
            os.kill(shim, signal.SIGCONT)
        await until(lambda: "e" not in box.processes, "an exec that is done with")
