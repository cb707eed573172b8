"""What is reported of a program behind the init of ``init=True``, and what the init keeps from the
program."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import trio

from supervisor import (
    PIPE,
    Cause,
    Container,
    ExitStatus,
    ProgramNotExecutable,
    ProgramNotFound,
    Source,
)
from supervisor.spec._init import telling
from supervisor.state import read_exit_status, read_refused
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.leaks import wait_for
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), pytest.mark.rootless]

SECONDS = 30


async def end_of(box: Container) -> ExitStatus:
    with trio.fail_after(SECONDS):
        return await box.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR2])
async def test_a_signal_is_a_signal(
    supervisor: OpenSupervisor, bundle: MakeBundle, number: signal.Signals
) -> None:
    """A program that died of a signal is reported so behind an init: once it had *exited*, with 128
    plus the signal."""
    script = f"ulimit -c 0; kill -{int(number)} $$"
    spec = bundle("sh", "-c", script, init=True)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        status = await end_of(box)
    assert (status.signal, status.cause, status.source, status.core_dumped) == (
        number,
        Cause.SIGNALLED,
        Source.SHIM,
        False,
    )
    assert (box.returncode, int(status), box.init.args[:2]) == (
        -number,
        128 + number,
        ("/dev/init", "--"),
    )


@pytest.mark.parametrize("code", [0, 1, 137, 143, 255])
async def test_a_code_is_a_code(supervisor: OpenSupervisor, bundle: MakeBundle, code: int) -> None:
    """A program that exits with 137 is reported as exited, not as killed."""
    spec = bundle("sh", "-c", f"exit {code}", init=True)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        status = await end_of(box)
        assert (status.code, status.cause) == (code, Cause.EXITED)
        assert await box.stop() is not None


async def test_a_core_dump_is_seen(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A core dump is reported behind the init as without one; the machine decides whether a core is
    dumped."""
    script = "cd /tmp; ulimit -c unlimited; kill -SEGV $$"
    told = []
    async with supervisor() as sup:
        for init in (False, True):
            # Behind a shell in both cases: a pid 1 doesn't die of signals that it sends itself.
            words = ["sh", "-c", script] if init else ["sh", "-c", "sleep 60"]
            async with await sup.create("a", bundle(*words, init=init), rlimits={}) as box:
                await box.start()
                process = box.init if init else await box.exec(["sh", "-c", script])
                with trio.fail_after(SECONDS):
                    told.append(await process.wait())
    assert told[0].core_dumped == told[1].core_dumped
    assert [status.signal for status in told] == [signal.SIGSEGV] * 2


@needs_root
@pytest.mark.parametrize("by", ["the cgroup", "its pid"])
async def test_the_init_is_killed(supervisor: OpenSupervisor, bundle: MakeBundle, by: str) -> None:
    """A killed init can't report the program's end, and needn't."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60", init=True))
        await box.start()
        if by == "the cgroup":
            box.kill()
        else:
            assert box.pid is not None
            os.kill(box.pid, signal.SIGKILL)
        status = await end_of(box)
        assert (status.signal, status.oom_killed) == (signal.SIGKILL, False)


async def test_it_is_told_while_nobody_supervises(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The shim hears the init's report, so the next supervisor knows the end too."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60", init=True))
        await box.start()
        pid = box.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    recorded = str(root / "a/init/exitStatus")
    wait_for(lambda: read_exit_status(recorded) is not None, "the end")
    async with supervisor(root) as sup:
        assert sup["a"].status is not None
        assert sup["a"].status.signal is signal.SIGTERM
        await sup["a"].delete()


async def test_what_cannot_be_run_is_on_record(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exit with 126 or 127 may be the program's own; the record of a program that can't be run
    is a number."""
    async with supervisor(root) as sup:
        for n, (program, error, code) in enumerate(
            [("/no/such", errno.ENOENT, 127), ("/etc", errno.EACCES, 126)]
        ):
            async with await sup.create(f"a{n}", bundle(program, init=True)) as box:
                with pytest.raises((ProgramNotFound, ProgramNotExecutable)) as caught:
                    await box.start()
                assert caught.value.errno == error
                assert (await end_of(box)).code == code
                assert read_refused(str(root / f"a{n}/init/refused")) == error
                assert box.init._task.end.refused() == error
        async with await sup.create("b", bundle("sh", "-c", "exit 127", init=True)) as box:
            await box.start()
            assert ((await end_of(box)).code, box.init._task.end.refused()) == (127, None)


async def test_the_program_has_three_descriptors(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """The init keeps its pipe to itself: the program has three descriptors."""
    async with supervisor() as sup:
        script = "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done; echo none"
        spec = bundle("sh", "-c", script, init=True)
        async with await sup.create("a", spec, stdout=PIPE) as box:
            await box.start()
            assert box.stdout is not None
            assert b"".join([chunk async for chunk in box.stdout]) == b"none\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_the_end_of_output_is_heard(
    supervisor: OpenSupervisor, bundle: MakeBundle, stream: str
) -> None:
    """A reader hears the end of the output behind an init: once the init kept the pipe open until
    the program's end."""
    spec = bundle("sh", "-c", "echo x; echo x >&2; exec >&- 2>&-; sleep 60", init=True)
    async with supervisor() as sup:
        async with await sup.create("a", spec, stdout=PIPE, stderr=PIPE) as box:
            await box.start()
            reader = getattr(box, stream)
            heard = b""
            with trio.fail_after(SECONDS):
                async for chunk in reader:
                    heard += chunk
            assert (heard, box.returncode) == (b"x\n", None)


async def test_the_end_of_input_is_heard(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A writer hears the end of the input behind an init: once the init kept the pipe open, and the
    writer filled it and waited in vain."""
    spec = bundle("sh", "-c", "exec <&-; echo x; sleep 60", init=True)
    async with supervisor() as sup:
        async with await sup.create("a", spec, stdin=PIPE, stdout=PIPE) as box:
            await box.start()
            assert box.stdin is not None and box.stdout is not None
            await box.stdout.receive_some()
            with trio.fail_after(SECONDS), pytest.raises(trio.BrokenResourceError):
                await box.stdin.send_all(bytes(1 << 20))


@needs_root
@pytest.mark.parametrize(
    ("script", "codes"),
    [
        ("echo end 11 > /proc/1/fd/3; exit 0", {0}),
        ("echo end 11 > /proc/1/fd/3; exit 139", {139}),
        ("echo exec 2 > /proc/1/fd/3; echo end 0 > /proc/1/fd/3; kill -TERM $$", {143}),
        ("echo -n end 1 > /proc/1/fd/3; kill -TERM $$", {143}),
        ("cat /dev/zero > /proc/1/fd/3 & sleep 0.2; kill -TERM $$", {143}),
        ("(yes '' | head -c 4089; echo end 11) > /proc/1/fd/3; exit 0", {0}),
        ("exec 9</proc/1/fd/3; kill -TERM $$", {143}),
    ],
)
async def test_what_others_say_is_not_believed(
    supervisor: OpenSupervisor, bundle: MakeBundle, script: str, codes: set[int]
) -> None:
    """A false report from root inside, who can open the pipe, is not believed: it can only suppress
    the init's."""
    spec = bundle("sh", "-c", script, init=True)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        status = await end_of(box)
        assert int(status) in codes
        if codes == {0} or codes == {139}:
            assert status.signal is None
        assert (await sup.create("b", bundle("true"))).id == "b"


async def test_an_init_of_another_installation_is_told_nothing(
    supervisor: OpenSupervisor, bundle: MakeBundle, tmp_path: Path
) -> None:
    """An init of another installation gets no option for the report: it would take the option for
    the program's name."""
    script = tmp_path / "other-init"
    script.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    script.chmod(0o755)
    config = Path(bundle("sh", "-c", "exit 7", init=True).path) / "config.json"
    content = json.loads(config.read_text())
    for mount in content["mounts"]:
        if mount["destination"] == "/dev/init":
            mount["source"] = str(script)
    config.write_text(json.dumps(content))
    async with supervisor() as sup, await sup.create("a", config.parent) as box:
        await box.start()
        assert (await end_of(box)).code == 7


def test_the_words_of_an_init() -> None:
    """The init's descriptors stand before the program in its arguments, behind a gate's own."""
    args = ["/dev/init", "--", "true"]
    assert telling(args, gated=False) == ["/dev/init", "--status", "3", "--", "true"]
    gated = ["/dev/init", "--status", "4", "--report", "3", "--", "true"]
    assert telling(args, gated=True) == gated
