"""`run_container` and `Container.run` beside what Trio's reference says of `trio.run_process`."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from array import array
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import trio

from supervisor import (
    DEVNULL,
    PIPE,
    STDOUT,
    InvalidValue,
    Process,
    ProcessFailed,
    ProgramNotFound,
    RuntimeFailed,
    ShimError,
    StreamFull,
)
from tests.as_trio.programs import Programs

Opened = Callable[[], AbstractAsyncContextManager[Programs]]

TRAPPED = ["sh", "-c", "trap 'exit 0' TERM; echo set; while :; do sleep 0.05; done"]
DEAF = ["sh", "-c", "trap '' TERM; echo set; while :; do sleep 0.05; done"]


async def _said(process: Process) -> None:
    """Return when the program's first line has come."""
    assert process.stdout is not None
    assert await process.stdout.receive_some() == b"set\n"


async def test_input_and_output(programs: Opened) -> None:
    """A program gets its whole input, and then the end of it; both output streams are kept
    apart."""
    data = random.randbytes(1 << 18)
    script = ["sh", "-c", "cat; echo err >&2"]
    async with programs() as run:
        done = await run.run(script, stdin=data, capture_stdout=True, capture_stderr=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, data, b"err\n")
        done = await run.run(["cat"], capture_stdout=True)
        assert (done.stdout, done.stderr) == (b"", None)
        done = await run.run(script, stdin=b"x", capture_stdout=True, stderr=STDOUT)
        assert (done.stdout, done.stderr) == (b"xerr\n", None)


async def test_opened_anew(programs: Opened, tmp_path: Path) -> None:
    """A stream may be opened again by name, as a pipe may, also when the other side has gone.

    Opening a fifo waits for the other side: a program that opened /dev/stdin after the end of the
    input once waited for ever, as often as not.
    """
    late = ["sh", "-c", "sleep 0.3; cat /dev/stdin"]
    (tmp_path / "in").write_bytes(b"hello")
    with trio.fail_after(30):
        async with programs() as run:
            for given in (b"hello", tmp_path / "in"):
                done = await run.run(late, stdin=given, capture_stdout=True)
                assert done.stdout == b"hello"
            anew = "read line; exec 3>/dev/stdout; while echo x >&3; do :; done; exit 7"
            async with run.open(["sh", "-c", anew], stdin=PIPE, stdout=PIPE) as process:
                assert process.stdin is not None and process.stdout is not None
                await process.stdout.aclose()
                await process.stdin.send_all(b"\n")
                assert (await process.wait()).returncode in (7, -signal.SIGPIPE)


async def test_views(programs: Opened) -> None:
    """The input may be a view of other things than bytes: once only a part was sent."""
    numbers = memoryview(array("I", range(100_000)))
    async with programs() as run:
        for view in (numbers, memoryview(b"abcdef")[::2], memoryview(b"abcd").cast("B", (2, 2))):
            done = await run.run(["cat"], stdin=view, capture_stdout=True)
            assert done.stdout == view.tobytes()


async def test_one_file_for_both(programs: Opened, tmp_path: Path) -> None:
    """Output and errors that go to the same file keep their order, as one stream."""
    script = ["sh", "-c", "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done"]
    path = tmp_path / "both"
    async with programs() as run:
        with path.open("wb") as file:
            await run.run(script, stdout=file, stderr=file)
        await run.run(script, stdout=path, stderr=str(path))
    assert path.read_text().split() == [f"{e}{i}" for i in range(1, 6) for e in ("", "e")] * 2


async def test_a_program_that_closes_its_input(programs: Opened) -> None:
    """A program that closes its input with more to come causes no error."""
    async with programs() as run:
        done = await run.run(["sh", "-c", "exec <&-; sleep 0.1"], stdin=b"x" * (1 << 18))
        assert done.returncode == 0


async def test_a_descriptor(programs: Opened) -> None:
    """A stream may be one of the caller's."""
    reading, writing = os.pipe()
    try:
        async with programs() as run:
            await run.run(["echo", "hello"], stdout=writing)
        os.close(writing)
        writing = -1
        assert os.read(reading, 100) == b"hello\n"
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


async def test_a_file_is_copied(programs: Opened) -> None:
    """The program has a fifo in the place of the caller's file; an error of the file is reported by
    us."""
    async with programs() as run, await trio.open_file("/dev/full", "wb", 0) as full:
        done = await run.run(["sh", "-c", "[ -p /dev/stdin ]"], stdin=Path("/etc/passwd"))
        assert done.returncode == 0
        with pytest.raises(StreamFull):
            await run.run(["echo", "hello"], stdout=full.fileno())


async def test_text_is_refused(programs: Opened) -> None:
    """`stdin="text"` is a path here, and a missing path is refused; Trio refuses all text."""
    async with programs() as run:
        with pytest.raises(ValueError, match="encode"):
            await run.run(["cat"], stdin="oh no, it's text")


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
async def test_a_pipe_for_nobody(programs: Opened, name: str) -> None:
    """A PIPE without `nursery.start` is refused: no caller could have the other end."""
    async with programs() as run:
        with pytest.raises(ValueError, match=f"^{name}=.*nursery.start"):
            await run.run(["cat"], **{name: PIPE})


@pytest.mark.parametrize("name", ["stdout", "stderr"])
async def test_captured_and_sent_elsewhere(programs: Opened, name: str) -> None:
    """A stream can't be both captured and sent elsewhere."""
    async with programs() as run:
        with pytest.raises(InvalidValue, match=name):
            await run.run(["true"], **{f"capture_{name}": True, name: DEVNULL})
        done = await run.run(["echo", "x"], capture_stdout=True, stdout=None, stderr=None)
        assert done.stdout == b"x\n"  # None is the default


async def test_check(programs: Opened, kind: str) -> None:
    """By default a failure raises, and the error is a `subprocess.CalledProcessError` too."""
    script = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    async with programs() as run:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await run.run(script, capture_stderr=True)
        error = caught.value
        assert isinstance(error, ProcessFailed)
        assert (error.returncode, error.stdout, error.stderr) == (3, None, b"err\n")
        before = ("/dev/init", "--") if kind == "behind an init" else ()
        assert error.cmd == (*before, *script) and error.output is None
        done = await run.run(script, capture_stdout=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", None)
        assert done.args == error.cmd
        with pytest.raises(ProcessFailed) as caught:
            done.check_returncode()
        assert (caught.value.returncode, caught.value.stdout) == (3, b"out\n")


async def test_started(programs: Opened) -> None:
    """`nursery.start` gives the process as soon as the program runs, with the streams."""
    async with programs() as run, trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                run.run, ["sh", "-c", "cat; echo end >&2"], stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
        )
        assert process.returncode is None
        await process.stdin.send_all(b"hello")
        await process.stdin.aclose()
        assert b"".join([part async for part in process.stdout]) == b"hello"
        assert b"".join([part async for part in process.stderr]) == b"end\n"
        assert (await process.wait()).returncode == 0


async def test_a_failure_in_the_background(programs: Opened) -> None:
    """A failure in the background comes out of the nursery."""
    async with programs() as run:
        with pytest.RaisesGroup(ProcessFailed):
            async with trio.open_nursery() as nursery:
                script = ["sh", "-c", "read line; exit 1"]
                process = await nursery.start(partial(run.run, script, stdin=PIPE))
                await process.stdin.aclose()
        assert process.returncode == 1


async def test_cancelled(programs: Opened) -> None:
    """A cancelled run's program gets SIGTERM, and is waited for; no warning if it ends."""
    async with programs() as run, trio.open_nursery() as nursery:
        process = await nursery.start(partial(run.run, TRAPPED, stdout=PIPE))
        await _said(process)
        nursery.cancel_scope.cancel()
    assert process.returncode == 0


async def test_cancelled_and_deaf(
    programs: Opened, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled run's program that goes on is killed some seconds later, with a warning that
    recommends an init."""
    monkeypatch.setattr("supervisor.container._stop.STOP_GRACE_SECONDS", 0.2)
    monkeypatch.setattr("supervisor.running._end.GRACE_SECONDS", 0.2)

    async def cancelled() -> Process:
        async with programs() as run, trio.open_nursery() as nursery:
            process: Process = await nursery.start(partial(run.run, DEAF, stdout=PIPE))
            await _said(process)
            nursery.cancel_scope.cancel()
        return process

    with pytest.warns(RuntimeWarning, match="the program 'sh' .* ignored SIGTERM") as warned:
        process = await cancelled()
    assert process.returncode == -signal.SIGKILL
    assert ("init=True" in str(warned[0].message)) == (kind == "init")


async def test_cancelled_and_not_to_be_asked(
    programs: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled run's program is killed at once if the signal can't be sent, and the reason comes
    out; Trio warns."""
    send_signal = Process.send_signal

    def broken(self: Process, number: int) -> None:
        if number == signal.SIGTERM:
            raise ShimError("whoops")
        send_signal(self, number)

    monkeypatch.setattr(Process, "send_signal", broken)
    with pytest.RaisesGroup(pytest.RaisesExc(ShimError, match="whoops"), flatten_subgroups=True):
        async with programs() as run, trio.open_nursery() as nursery:
            process = await nursery.start(partial(run.run, TRAPPED, stdout=PIPE))
            await _said(process)
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGKILL


async def test_deliver_cancel(programs: Opened) -> None:
    """A caller's `deliver_cancel` asks the program to end, and is cancelled when the program has
    ended."""
    went: list[object] = []

    async def deliver(process: Process) -> None:
        process.terminate()
        try:
            await trio.sleep_forever()
        finally:
            went.append(process.returncode)

    with trio.fail_after(20):
        async with programs() as run, trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(run.run, TRAPPED, stdout=PIPE, deliver_cancel=deliver)
            )
            await _said(process)
            nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert went == [0]


async def test_deliver_cancel_of_the_documentation(programs: Opened) -> None:
    """The example of Trio's documentation works: a signal, a while, SIGKILL. It ends when the
    program does."""

    async def deliver(process: Process) -> None:
        process.terminate()
        await trio.sleep(600)
        process.kill()

    with trio.fail_after(20):
        async with programs() as run, trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(run.run, TRAPPED, stdout=PIPE, deliver_cancel=deliver)
            )
            await _said(process)
            nursery.cancel_scope.cancel()
    assert process.returncode == 0


async def test_deliver_cancel_that_raises(programs: Opened) -> None:
    """An error of `deliver_cancel` comes out, once the program has ended."""

    async def deliver(process: Process) -> None:
        process.kill()
        raise KeyError("oops")

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with programs() as run, trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(run.run, TRAPPED, stdout=PIPE, deliver_cancel=deliver)
            )
            await _said(process)
            nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGKILL


async def test_no_such_program(programs: Opened) -> None:
    """A program that can't be run is an `OSError`, as for a process of the host."""
    async with programs() as run:
        with pytest.raises(FileNotFoundError):
            await run.run(["/no/such/program"])
        with pytest.raises(PermissionError):
            await run.run(["/etc"])


async def test_descriptors(programs: Opened) -> None:
    """No process leaves a descriptor; the first container opens what the supervisor keeps for
    all."""
    async with programs() as run:
        await run.run(["true"], capture_stdout=True)
        before = set(os.listdir("/proc/self/fd"))
        await run.run(["cat"], stdin=b"x", capture_stdout=True)
        with pytest.raises(ProcessFailed):
            await run.run(["false"])
        with pytest.raises(PermissionError):
            await run.run(["/dev/fd/0"])
        assert set(os.listdir("/proc/self/fd")) == before


async def test_a_path_through_its_own_proc(programs: Opened, kind: str) -> None:
    """A path that only the program itself could look at is refused without an explanation."""
    async with programs() as run:
        error = ProcessFailed if kind == "behind an init" else RuntimeFailed
        with pytest.raises(error, match=r"[pP]ermission denied|not executable") as caught:
            await run.run(["/proc/self/root/etc/passwd"], capture_stderr=True)
        assert caught.value.returncode == (126 if kind == "behind an init" else ANY)


async def test_directory_and_variables(programs: Opened) -> None:
    """`cwd` and `env` are those inside the container."""
    async with programs() as run:
        script = ["sh", "-c", "pwd; echo $WORD"]
        done = await run.run(script, cwd="/proc", env={"WORD": "x"}, capture_stdout=True)
        assert done.stdout == b"/proc\nx\n"


async def test_text_is_what_json_can_say(programs: Opened) -> None:
    """`args` and `env` are text in UTF-8; a directory may be a path."""
    async with programs() as run:
        done = await run.run(["echo", "h\u00e9", ""], cwd=Path("/proc"), capture_stdout=True)
        assert done.stdout == b"h\xc3\xa9 \n"
        others: list[tuple[Any, Any]] = [
            ([b"true"], None),
            ([Path("/bin/true")], None),
            (["echo", "\udcff"], None),
            (["true"], {b"A": b"x"}),
            (["true"], {"A": Path("/x")}),
            (["true"], {"A": "\udcff"}),
        ]
        for args, env in others:
            with pytest.raises(InvalidValue):
                await run.run(args, env=env)


async def test_a_directory_that_is_not_there(programs: Opened, kind: str) -> None:
    """An exec in a missing directory fails; an init's directory is made. A relative one is
    refused."""
    async with programs() as run:
        if kind == "exec":
            with pytest.raises(FileNotFoundError) as caught:
                await run.run(["pwd"], cwd="/no/such")
            assert caught.value.filename == "/no/such"
        else:
            done = await run.run(["sh", "-c", "pwd"], cwd="/tmp/made", capture_stdout=True)
            assert done.stdout == b"/tmp/made\n"
        with pytest.raises(InvalidValue, match="cwd"):
            await run.run(["true"], cwd="tmp")


async def test_kinds_of_errors(programs: Opened) -> None:
    """A program that can't be run raises one of two kinds of error, and `errno` is the system's."""
    async with programs() as run:
        with pytest.raises(ProgramNotFound) as caught:
            await run.run(["/etc/passwd/x"])
        assert caught.value.errno == errno.ENOTDIR
        with pytest.raises(ProgramNotFound) as caught:
            await run.run(["true"], cwd="/etc/passwd")
        assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("word", ["encoding", "text", "universal_newlines", "errors", "bufsize"])
async def test_options_of_text(programs: Opened, word: str) -> None:
    """The options for text are refused: streams are bytes, unbuffered."""
    async with programs() as run:
        with pytest.raises(TypeError, match=word):
            await run.run(["true"], **{word: "utf-8"})


async def test_a_line_of_shell_is_no_program(programs: Opened) -> None:
    """A string isn't split: there is no `shell=True`."""
    async with programs() as run:
        with pytest.raises(ValueError, match="args"):
            await run.run("ls")  # type: ignore[arg-type]
