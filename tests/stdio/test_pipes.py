"""PIPE: bytes through fifos, exactly, with readers and writers that come and go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import trio
import trio.testing

from supervisor import DEVNULL, PIPE, STDOUT, Bundle, Fifo, NotFifo, ProcessEnded, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import Choice, needs_root
from tests.support.streams import everything, pattern
from tests.support.victim import Victims

MIB = 1 << 20
SIZES = [0, 1, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 64 * MIB]


@pytest.mark.parametrize("size", SIZES)
async def test_in_and_out_at_once(
    supervisor: OpenSupervisor, bundle: MakeBundle, size: int
) -> None:
    """``cat`` returns exactly its input, and its exit right after the last byte loses none."""
    content = pattern(size)
    async with supervisor() as sup:
        done = await run_container(
            bundle("cat"), supervisor=sup, stdin=content, capture_stdout=True
        )
        assert done.stdout == content and not done.held
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            if size <= MIB:
                ran = await box.run(["cat"], stdin=content, capture_stdout=True)
                assert ran.stdout == content and not ran.held


async def test_binary_and_mixed(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Binary data, long lines, no final newline, both outputs: nothing is changed."""
    script = "cat; printf '\\377\\000x\\n' >&2; printf out; printf err >&2"
    content = bytes(range(256)) * 4096 + b"y" * MIB
    async with supervisor() as sup:
        done = await run_container(
            bundle("sh", "-c", script),
            supervisor=sup,
            stdin=content,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert done.stdout == content + b"out" and done.stderr == b"\xff\0x\nerr"


async def test_end_of_input(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Closing stdin ends ``cat``; a pipeline that gives up the input ends too."""
    async with supervisor() as sup, await sup.create("a", bundle("cat"), stdin=PIPE) as box:
        await box.start()
        piped = await box.run(["sh", "-c", "echo hi | exec cat"], capture_stdout=True)
        assert piped.stdout == b"hi\n"
        assert box.stdin is not None
        await box.stdin.aclose()
        with trio.fail_after(10):
            assert (await box.wait()).code == 0


async def test_a_reader_that_comes_back(
    supervisor: OpenSupervisor, root: Path, bundle: MakeBundle
) -> None:
    """A reader that goes away and comes back loses nothing that the fifo holds."""
    script = "while read x; do echo $x; done"
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sh", "-c", script), stdin=PIPE, stdout=PIPE)
        await box.start()
        assert box.stdin is not None and box.stdout is not None
        await box.stdin.send_all(b"one\n")
        assert await box.stdout.receive_some() == b"one\n"
        await box.stdin.send_all(b"two\n")
    async with supervisor(root) as sup, sup["a"] as box:
        assert box.stdin is not None and box.stdout is not None
        await box.stdin.send_all(b"three\n")
        heard = b""
        with trio.fail_after(10):
            while heard != b"two\nthree\n":
                heard += await box.stdout.receive_some()
        await box.stdin.aclose()
        assert (await box.wait()).code == 0


async def test_back_pressure(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A writer without a reader is blocked, and goes on when there is one."""
    script = "dd if=/dev/zero bs=65536 count=16 2>/dev/null; echo end >&2"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=PIPE, stderr=PIPE) as box,
    ):
        await box.start()
        assert box.stderr is not None
        with trio.move_on_after(0.3) as scope:
            await box.stderr.receive_some()
        assert scope.cancelled_caught and box.status is None
        assert await everything(box.stdout) == bytes(MIB)
        assert await everything(box.stderr) == b"end\n"


async def test_stderr_to_stdout(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """With STDOUT for stderr both are one stream, in the order of the writes."""
    script = "echo a; echo b >&2; echo c"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=PIPE, stderr=STDOUT) as box,
    ):
        await box.start()
        assert await everything(box.stdout) == b"a\nb\nc\n"


async def test_an_own_fifo(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> None:
    """A fifo of the caller's is used, and stays the caller's: no one else reads from the fifo."""
    fifo = workdir / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    async with trio.lowlevel.FdStream(reader) as stream, supervisor() as sup:
        spec = bundle("echo", "hello")
        async with await sup.create("a", spec, stdout=Fifo(str(fifo))) as box:
            assert box.stdout is None
            await box.start()
            await box.wait()
            assert await stream.receive_some() == b"hello\n"
            again = await box.exec(["true"]) if box.status is None else None
            assert again is None
    assert fifo.exists()


@pytest.mark.parametrize("what", ["missing", "file", "directory"])
async def test_not_a_fifo(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, root: Path, what: str
) -> None:
    """A path that was named as a fifo and isn't one is refused before anything is touched."""
    path = workdir / "path"
    if what == "file":
        path.write_bytes(b"")
    elif what == "directory":
        path.mkdir()
    async with supervisor(root) as sup:
        with pytest.raises(NotFifo, match="fifo") as raised:
            await sup.create("a", bundle("true"), stdin=Fifo(str(path)))
        assert raised.value.path == str(path)
        assert not list(sup) and not (root / "a").exists()


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
async def test_files(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, stream: str
) -> None:
    """A path and an open file work as streams, for init and exec."""
    path = workdir / "file"
    path.write_bytes(b"before\n")
    script = {"stdin": "read x; test $x = before", "stdout": "echo out", "stderr": "echo out >&2"}
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with path.open("rb" if stream == "stdin" else "ab") as file:
            for given in (path, str(path), file):
                ran = await box.run(["sh", "-c", script[stream]], **{stream: given})
                assert ran.returncode == 0
    assert path.read_bytes() == b"before\n" + (b"out\n" * 3 if stream != "stdin" else b"")


@contextlib.contextmanager
def standing_in(number: int, file: IO[bytes]) -> Iterator[None]:
    """Have a file for one of our own standard streams."""
    saved = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_our_own_standard_streams(
    supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path, number: int
) -> None:
    """Descriptors 0 to 2, such as ``sys.stdout``, are as good as any, for init and exec."""
    path = workdir / "file"
    path.write_bytes(b"before\n")
    script = ("read x; test $x = before", "echo out", "echo out >&2")[number]
    stream = {("stdin", "stdout", "stderr")[number]: number}
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with path.open("ab" if number else "rb") as file, standing_in(number, file):
            await box.run(["sh", "-c", script], **stream)
            if number == 0:
                file.seek(0)
            await run_container(bundle("sh", "-c", script), supervisor=sup, **stream)
    assert path.read_bytes() == b"before\n" + (b"out\n" * 2 if number else b"")


async def test_killed_in_the_middle(
    choice: Choice,
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """A supervisor that is killed while the container writes does no harm; the rest is read."""
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done"
    containers = {"a": bundle("sh", "-c", script).path}
    streams = {"containers": containers, "started": ["a"], "stdout": PIPE}
    with victim(choice.runtime(), cgroup_parent, root, **streams):
        pass
    async with supervisor(root) as sup, sup["a"] as box:
        with trio.fail_after(20):
            assert (await everything(box.stdout)).split() == [b"%d" % n for n in range(1, 20001)]
            assert (await box.wait()).code == 0


@needs_root
async def test_an_unprivileged_root_reopens_its_streams(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """In a user namespace, the container's root may open ``/dev/stdout`` again, and write."""
    made = bundle("sh", "-c", "echo one; echo two > /dev/stdout; echo three > /dev/stderr")
    path = Path(made.path) / "config.json"
    spec = json.loads(path.read_bytes())
    spec["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    path.write_text(json.dumps(spec))
    async with supervisor() as sup:
        for stdout in (PIPE, None):
            done = await run_container(
                Bundle.load(made.path),
                supervisor=sup,
                capture_stdout=stdout is PIPE,
                capture_stderr=True,
                stdout=None if stdout is PIPE else DEVNULL,
            )
            assert done.stderr == b"three\n"
            assert done.stdout == (b"one\ntwo\n" if stdout is PIPE else None)


async def test_a_broken_pipe(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Writing to a program that has closed its input raises BrokenResourceError, as with a pipe."""
    script = "exec <&-; echo closed; sleep 60"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdin=PIPE, stdout=PIPE) as box,
    ):
        await box.start()
        assert box.stdin is not None and box.stdout is not None
        assert await box.stdout.receive_some() == b"closed\n"
        with pytest.raises(trio.BrokenResourceError):
            await box.stdin.send_all(b"x")
        box.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("stdin", [PIPE, None], ids=["pipe", "null"])
async def test_ending_the_input_after_the_end(
    supervisor: OpenSupervisor, bundle: MakeBundle, stdin: int | None
) -> None:
    """A process that has ended has no input to end; the stream closes all the same."""
    async with supervisor() as sup, await sup.create("a", bundle("true"), stdin=stdin) as box:
        await box.start()
        await box.wait()
        for _ in range(2):
            with pytest.raises(ProcessEnded) as caught:
                box.close_stdin()
            assert caught.value.container == "a"
        if box.stdin is not None:
            with pytest.raises(trio.ClosedResourceError):
                await box.stdin.send_all(b"x")
            await box.stdin.aclose()


async def assert_closed(stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream) -> None:
    """Both streams are closed here, by another task."""
    with trio.fail_after(2), pytest.raises(trio.ClosedResourceError):
        await stdout.receive_some()
    with trio.fail_after(2), pytest.raises(trio.ClosedResourceError):
        await stdin.send_all(b"x")


@pytest.mark.parametrize("over", ["deleted", "let go"])
async def test_our_ends_of_an_exec_that_is_done_with(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, over: str
) -> None:
    """The streams are closed with the container or the supervisor, as for any process."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        process = await box.exec(["sh", "-c", "exit 7"], stdin=PIPE, stdout=PIPE)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None
        assert (await process.wait()).code == 7
        await until(lambda: process.id not in box.processes, "an exec that is done with")
        if over == "deleted":
            await box.delete(force=True)
            await assert_closed(stdin, stdout)
    await assert_closed(stdin, stdout)
    if over == "let go":
        async with supervisor(root) as sup:
            await sup["a"].delete(force=True)


async def test_a_reader_of_an_exec_when_its_supervisor_closes(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A task that reads an exec's output is woken when the supervisor closes."""
    async with trio.open_nursery() as nursery:
        async with supervisor(root) as sup:
            box = await sup.create("a", bundle("sleep", "60"))
            await box.start()
            process = await box.exec(["sleep", "60"], stdin=PIPE, stdout=PIPE)
            assert process.stdin is not None and process.stdout is not None
            nursery.start_soon(assert_closed, process.stdin, process.stdout)
            await trio.testing.wait_all_tasks_blocked()
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)


async def test_the_input_of_an_exec_after_reopening(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The next supervisor has the only writing end of the input, so that a close there is EOF."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        first = await box.exec(["cat"], id="e", stdin=PIPE, stdout=PIPE)
        assert first.stdin is not None
        await first.stdin.send_all(b"one ")
    async with supervisor(root) as sup:
        process = sup["a"].processes["e"]
        assert process.stdin is not None
        await process.stdin.send_all(b"two")
        with trio.fail_after(5):
            await process.stdin.aclose()
            assert await everything(process.stdout) == b"one two"
            assert (await process.wait()).code == 0
        await sup["a"].delete(force=True)
