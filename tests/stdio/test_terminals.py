"""Terminals: a size from the start, raw bytes both ways, coming and going."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    PIPE,
    AlreadyAttached,
    InvalidValue,
    ProcessEnded,
    SupervisorError,
    TerminalSize,
    TerminalStream,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.runtimes import Choice
from tests.support.streams import rest
from tests.support.victim import Victims

KEPT = 64 * 1024


async def hear(stream: TerminalStream, wanted: bytes) -> bytes:
    """Read until ``wanted`` has come; return all that came."""
    heard = b""
    with trio.fail_after(20):
        while wanted not in heard:
            chunk = await stream.receive_some()
            assert chunk, heard
            heard += chunk
    return heard


@pytest.mark.parametrize("inside", [False, True], ids=["init", "exec"])
async def test_sizes(supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool) -> None:
    """The program sees the initial size, later the new one. An exec of crun's may run for a moment
    before it has the size (docs/streams.md): crun hands the terminal over while the program starts.
    """
    wait = 'while [ "$(stty size)" = "0 0" ]; do :; done; ' if inside else ""
    script = ["sh", "-c", f"{wait}stty size; read x; stty size; echo $x; exec sleep 60"]
    size: Any = (100, 30)
    async with supervisor() as sup:
        spec = bundle(*(["sleep", "60"] if inside else script))
        async with await sup.create("a", spec, terminal=False if inside else size) as box:
            if inside:
                await box.start()
                process = await box.exec(script, terminal=TerminalSize(*size))
            else:
                process = box.init
            async with await process.attach() as terminal:
                if not inside:
                    await box.start()
                await hear(terminal, b"30 100\r\n")
                process.resize(120, 40)
                await trio.sleep(0.05)
                await terminal.send_all(b"hello\n")
                assert await hear(terminal, b"\r\nhello\r\n") == b"hello\r\n40 120\r\nhello\r\n"
            assert process.terminal and process.stdout is None


async def test_the_default_size(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """``terminal=True`` is 80 by 24; output from before the process's end can be read later."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("stty", "size"), terminal=True) as box,
    ):
        await box.start()
        assert (await box.wait()).code == 0
        async with await box.attach() as terminal:
            assert await rest(terminal) == b"24 80\r\n"
        with pytest.raises(ProcessEnded):
            await box.attach()


async def test_control_c(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Ctrl-C, typed on the terminal, interrupts the foreground process."""
    script = "sh -c 'echo ready; exec sleep 60'; echo status $?"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", f"trap : INT; {script}"), terminal=True) as box,
        await box.attach() as terminal,
    ):
        await box.start()
        await hear(terminal, b"ready\r\n")
        await trio.sleep(0.1)
        await terminal.send_all(b"\x03")
        assert b"status 130" in await rest(terminal)


async def test_ten_thousand_lines(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Ten thousand lines arrive complete, in order."""
    script = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo $i; done"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), terminal=True) as box,
        await box.attach() as terminal,
    ):
        await box.start()
        assert (await rest(terminal)).split() == [b"%d" % n for n in range(1, 10_001)]


async def test_raw_bytes_both_ways(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """In raw mode every byte passes, in both directions, more than any buffer holds."""
    content = bytes(range(256)) * 2048
    spec = bundle("sh", "-c", "stty raw -echo; echo go; exec cat")
    async with (
        supervisor() as sup,
        await sup.create("a", spec, terminal=True) as box,
        await box.attach() as terminal,
    ):
        await box.start()
        await hear(terminal, b"go\n")
        heard = bytearray()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(terminal.send_all, content)
                while len(heard) < len(content):
                    heard += await terminal.receive_some()
        assert bytes(heard) == content


async def test_one_at_a_time(
    choice: Choice, supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Also from another program, and through another supervisor."""
    program = (
        "import sys, trio; from supervisor import *\n"
        "async def main():\n"
        "    async with open_supervisor(sys.argv[1], runtime=sys.argv[2]) as sup:\n"
        "        async with await sup['a'].attach() as terminal:\n"
        "            await terminal.send_all(b'you\\n')\n"
        "            while True: sys.stdout.buffer.write(await terminal.receive_some()) and "
        "sys.stdout.flush()\n"
        "trio.run(main)\n"
    )
    script = "while read x; do echo hello $x; done"
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sh", "-c", script), terminal=True) as box,
    ):
        await box.start()
        async with await box.attach():
            with pytest.raises(AlreadyAttached, match="attached"):
                await box.attach()
        command = [sys.executable, "-c", program, str(root), choice.runtime().path]
        other = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            heard = b""
            while b"hello you" not in heard:
                heard += await trio.to_thread.run_sync(other.stdout.read1)
            with pytest.raises(AlreadyAttached):
                await box.attach()
        finally:
            other.kill()
            other.wait()
            assert other.stdout is not None
            other.stdout.close()
        with trio.fail_after(10):
            while True:
                try:
                    terminal = await box.attach()
                    break
                except AlreadyAttached:  # the shim hasn't noticed yet
                    await trio.sleep(0.01)
        async with terminal:
            await terminal.send_all(b"me\n")
            await hear(terminal, b"hello me\r\n")


async def test_detaching(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Detaching never freezes the program: the last 64 KiB are kept, the others dropped and
    counted."""
    wait = "until [ -e /dev/go ]; do sleep 0.01; done"
    count = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo $i; done; : >/dev/done; sleep 60"
    script = f"stty -echo -onlcr; echo go; {wait}; {count}"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), terminal=True) as box,
    ):
        await box.start()
        async with await box.attach() as terminal:
            assert terminal.dropped == 0
            await hear(terminal, b"go\n")
        await box.run(["sh", "-c", ": >/dev/go"])
        total = b"".join(b"%d\n" % n for n in range(1, 30001))
        with trio.fail_after(20):
            while (await box.run(["sh", "-c", "test -e /dev/done"], check=False)).returncode != 0:
                await trio.sleep(0.02)
        async with await box.attach() as terminal:
            kept = await hear(terminal, b"30000\n")
            assert total.endswith(kept) and terminal.dropped == len(total) - len(kept)
            assert KEPT <= len(kept) <= KEPT + 8192  # the last part may have been in the terminal


async def test_after_adoption(
    choice: Choice,
    supervisor: OpenSupervisor,
    cgroup_parent: str,
    victim: Victims,
    root: Path,
    bundle: MakeBundle,
) -> None:
    """The terminal is still there when the supervisor was killed."""
    containers = {"a": bundle("sh", "-c", "echo one; while read x; do echo $x; done").path}
    what: dict[str, Any] = {"containers": containers, "started": ["a"], "terminal": True}
    with victim(choice.runtime(), cgroup_parent, root, **what):
        pass
    async with supervisor(root) as sup, sup["a"] as box, await box.attach() as terminal:
        await hear(terminal, b"one\r\n")
        await terminal.send_all(b"two\n")
        await hear(terminal, b"two\r\ntwo\r\n")
        await terminal.send_all(b"\x04")
        assert await rest(terminal) == b""
        assert (await box.wait()).code == 0


async def test_hang_up(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The session gets SIGHUP."""
    script = "trap 'exit 7' HUP; echo ready; while :; do sleep 0.02; done"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), terminal=True) as box,
        await box.attach() as terminal,
    ):
        await box.start()
        await hear(terminal, b"ready\r\n")
        box.init.hang_up()
        with trio.fail_after(10):
            assert (await box.wait()).code == 7


async def test_half_close(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A client that has closed its writing side still reads the output."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", "read x; echo got $x"), terminal=True) as box,
        await box.attach() as terminal,
    ):
        await box.start()
        await terminal.send_all(b"it\n")
        await terminal.send_eof()
        assert (await rest(terminal)).endswith(b"got it\r\n")


async def test_without_one(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Without a terminal, the error says what to do; wrong sizes and streams are refused."""
    async with supervisor() as sup:
        for wrong in ((0, 24), (80, 65536), (80,), "yes", (80.0, 24)):
            with pytest.raises(InvalidValue):
                await sup.create("a", bundle("true"), terminal=wrong)
        with pytest.raises(InvalidValue, match="terminal"):
            await sup.create("a", bundle("true"), terminal=True, stdin=PIPE)
        assert not list(sup)
        async with await sup.create("a", bundle("true")) as box:
            with pytest.raises(InvalidValue, match="terminal=True"):
                await box.attach()
            with pytest.raises(InvalidValue, match="terminal=True"):
                box.resize(80, 24)
            with pytest.raises(InvalidValue, match="terminal=True"):
                box.init.hang_up()


def test_a_terminal_without_a_size() -> None:
    """The size that os.get_terminal_size() returns without a terminal is refused, with what to
    do."""
    for size in ((0, 0), (80, 0)):
        with pytest.raises(InvalidValue, match=r"not 0: a terminal without a size .* \(80, 24\)"):
            TerminalSize(*size)
    with pytest.raises(InvalidValue, match=r"not -1$"):
        TerminalSize(80, -1)


async def test_receiving_from_a_closed_one(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A closed terminal gives no data, not even the data that came with the greeting."""
    spec = bundle("sh", "-c", "echo hello; sleep 60")
    async with supervisor() as sup, await sup.create("a", spec, terminal=True) as box:
        await box.start()
        async with await box.attach() as terminal:
            await hear(terminal, b"hello\r\n")
        box.resize(1, 1)
        closed = TerminalStream(trio.SocketStream(trio.socket.socket()), 0, b"hello")
        await closed.aclose()
        for stream in (terminal, closed):
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()


async def test_deleting_an_attached_one(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An attached client reads the end when the container is deleted."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60"), terminal=True)
        async with await box.attach() as terminal:
            await box.start()
            await box.delete(force=True)
            assert await rest(terminal) == b""
        assert box.status is not None and box.status.signal is signal.SIGKILL


async def test_after_the_end(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A process that has ended has no terminal to change, though the output can be read."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("echo", "hi"), terminal=True) as box:
            await box.start()
            await box.wait()
            for act in (lambda: box.resize(10, 10), box.init.hang_up):
                with pytest.raises(ProcessEnded, match="process init has ended") as caught:
                    act()
                assert caught.value.container == "a"
            async with await box.attach() as stream:
                assert await rest(stream) == b"hi\r\n"


@pytest.mark.parametrize("inside", [False, True], ids=["init", "exec"])
async def test_term(supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool) -> None:
    """TERM says what the terminal can do, unless the caller sets TERM."""
    show = ["sh", "-c", "echo $TERM"]
    for env, wanted in (({}, b"xterm\r\n"), ({"TERM": "vt100"}, b"vt100\r\n")):
        spec = bundle(*(["sleep", "60"] if inside else show))
        told: dict[str, Any] = {"terminal": True, "env": env}
        async with (
            supervisor() as sup,
            await sup.create("a", spec, **({} if inside else told)) as box,
        ):
            await box.start()
            process = await box.exec(show, **told) if inside else box.init
            async with await process.attach() as terminal:
                assert await rest(terminal) == wanted
            if inside:  # without a terminal there is no TERM
                done = await box.run(["sh", "-c", "echo $TERM"], capture_stdout=True)
                assert done.stdout == b"\n"


async def test_what_a_bundle_says(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A bundle's own TERM stays, for execs too."""
    spec = bundle("sleep", "60", env={"TERM": "linux"})
    async with supervisor() as sup, await sup.create("a", spec, terminal=True) as box:
        await box.start()
        process = await box.exec(["sh", "-c", "echo $TERM"], terminal=True)
        async with await process.attach() as terminal:
            assert await rest(terminal) == b"linux\r\n"


@pytest.mark.parametrize("size", [0, -1])
async def test_receiving_nothing(supervisor: OpenSupervisor, bundle: MakeBundle, size: int) -> None:
    """A wrong byte count is refused as by any stream of Trio's; 0 once gave all, -1 all but the
    last byte."""
    spec = bundle("echo", "hello")
    async with supervisor() as sup, await sup.create("a", spec, terminal=True) as box:
        await box.start()
        await box.wait()
        async with await box.attach() as terminal:
            with pytest.raises(ValueError, match="max_bytes must be integer >= 1"):
                await terminal.receive_some(size)
            with pytest.raises(TypeError, match="max_bytes"):
                await terminal.receive_some("1")  # type: ignore[arg-type]
            assert await terminal.receive_some(2) == b"he"
            assert await rest(terminal) == b"llo\r\n"


async def test_attached_from_the_beginning(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """No output is dropped before the first attachment, however late that is."""
    count = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo $i; done"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["sh", "-c", count], terminal=True, attach=True)
        with trio.move_on_after(0.3) as scope:
            await process.wait()
        assert scope.cancelled_caught, "it didn't wait for its reader"
        async with await process.attach() as terminal:
            with pytest.raises(AlreadyAttached):
                await process.attach()
            heard = await rest(terminal)
            assert heard.split() == [b"%d" % n for n in range(1, 60_001)]
            assert terminal.dropped == 0
        assert (await process.wait()).code == 0
        with pytest.raises(ProcessEnded):
            await process.attach()


async def test_attached_and_typed_at(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The attachment from the start is an ordinary one: after a close, another can follow."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        process = await box.exec(["cat"], terminal=(100, 30), attach=True)
        for word in (b"one\n", b"two\n"):
            async with await process.attach() as terminal:
                await terminal.send_all(word)
                wanted = word.replace(b"\n", b"\r\n")
                assert await hear(terminal, wanted * 2) == wanted * 2


async def test_attached_and_never_asked_for(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An unused attachment's output goes to the next supervisor or with the process; nothing stays
    open."""
    with pytest.raises(InvalidValue, match="attach=True needs a terminal"):
        async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            await box.exec(["true"], attach=True)
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "600"))
        await box.start()
        await box.exec(["sh", "-c", "read x; echo words"], id="e", terminal=True, attach=True)
    async with supervisor(root) as sup, sup["a"] as box:
        with trio.fail_after(10):
            while True:
                try:
                    terminal = await box.processes["e"].attach()
                    break
                except AlreadyAttached:  # the shim hasn't noticed yet
                    await trio.sleep(0.01)
        async with terminal:
            await terminal.send_all(b"\n")
            assert await rest(terminal) == b"\r\nwords\r\n"


async def test_a_failed_exec_leaves_no_attachment(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """Descriptors are compared after each test."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        for _ in range(3):
            with pytest.raises(SupervisorError):
                await box.exec(["/no/such/program"], terminal=True, attach=True)
        assert list(box.processes) == ["init"]
