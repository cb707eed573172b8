"""What one taker gets, and the errors when that can't be had."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    PIPE,
    Bundle,
    BundleInvalid,
    ContainerPool,
    DeadlineExpired,
    GateFailed,
    InvalidValue,
    ProcessFailed,
    State,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import OpenPool, settled
from tests.support.runtimes import needs_root

pytestmark = pytest.mark.runtimes("runc", "crun")


@pytest.mark.runtimes("runc", "crun", "fake")
async def test_what_one_taker_gets(pool: OpenPool) -> None:
    """Each taker gets its own arguments, environment, working directory, input and files."""
    script = 'pwd; echo "$WHO $1"; cat; cat /tmp/ts-pool-x; exit 3'
    async with pool() as opened:
        done = await opened.run(
            ["sh", "-c", script, "-", "one"],
            env={"WHO": "me"},
            cwd="/tmp",
            stdin=b"input\n",
            files={"/tmp/ts-pool-x": b"content\n"},
            check=False,
        )
    assert done.stdout == b"/tmp\nme one\ninput\ncontent\n"
    assert (done.status.code, done.args[0]) == (3, "sh")


@pytest.mark.runtimes("runc", "crun", "fake")
async def test_without_wishes_it_is_the_bundles_program(pool: OpenPool) -> None:
    """Without arguments the bundle's run, with an empty input."""
    async with pool("sh", "-c", "cat; echo bundled") as opened:
        assert (await opened.run()).stdout == b"bundled\n"


@pytest.mark.parametrize("init", [False, True])
async def test_the_gate_reports_itself(
    pool: OpenPool, monkeypatch: pytest.MonkeyPatch, init: bool
) -> None:
    """The gate reports whether the program runs, so no look into the container follows a start; the
    condition for that once compared the taker's program with the gate, and was never true."""

    def look(*_: object) -> None:
        raise AssertionError("a look into a pooled container")

    monkeypatch.setattr("supervisor.container._start.root_of", look)
    async with pool(spec={"init": init}) as opened:
        assert (await opened.run(["echo", "a"])).stdout == b"a\n"
        with pytest.raises(GateFailed, match="/no/such"):
            await opened.run(["/no/such"])


@pytest.mark.runtimes("runc", "crun", "fake")
async def test_a_taker_that_feeds_it(pool: OpenPool) -> None:
    """With PIPE the taker writes the input, and closes it."""
    async with pool("cat") as opened, opened.take(stdin=PIPE) as box:
        assert box.stdin is not None and box.stdout is not None
        for part in (b"one", b"two"):
            await box.stdin.send_all(part)
            assert await box.stdout.receive_some() == part
        await box.stdin.aclose()
        assert await box.stdout.receive_some() == b""
        assert (await box.wait()).code == 0
        assert box.init.args == ("cat",)


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 1 << 20])
async def test_input_of_any_size(pool: OpenPool, size: int) -> None:
    """Input of more than a fifo holds, behind a frame of more than a fifo holds."""
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    async with pool() as opened:
        assert (await opened.run(["cat"], stdin=content)).stdout == content
        files = {"/tmp/a": content, "/run/b/c": b"\n\0\xff" * 30_000}
        done = await opened.run(["sh", "-c", "cat; cat /tmp/a"], stdin=content, files=files)
        assert done.stdout == content * 2
        async with opened.take(["cat"], stdin=content, files=files) as box:
            assert box.stdout is not None
            assert b"".join([chunk async for chunk in box.stdout]) == content


async def test_a_program_that_takes_no_input(pool: OpenPool) -> None:
    """A taker may feed a program that doesn't read, or has gone, without an error."""
    async with pool() as opened:
        assert (await opened.run(["true"], stdin=bytes(1 << 20))).status.code == 0
        async with opened.take(["sleep", "600"], stdin=bytes(1 << 20)) as box:
            assert box.state is State.RUNNING


async def test_files_are_the_users(pool: OpenPool) -> None:
    """A taker's files belong to the container's user, and have the modes that were asked for."""
    async with pool(spec={"user": (1000, 1000)}) as opened:
        done = await opened.run(["ls", "-ln", "/dev/shm/x"], files={"/dev/shm/x": (b"x", 0o640)})
    assert done.stdout is not None
    assert done.stdout.split()[:4] == [b"-rw-r-----", b"1", b"1000", b"1000"]


async def test_a_file_may_be_the_program(pool: OpenPool) -> None:
    """A script that comes with the taker can be the program, and the directory is made."""
    script = (b"#!/bin/sh\npwd\n", 0o755)
    async with pool() as opened:
        done = await opened.run(["./prog"], cwd="/tmp/new", files={"/tmp/new/prog": script})
    assert done.stdout == b"/tmp/new\n"


async def test_with_an_init(pool: OpenPool) -> None:
    """The init of a bundle stays pid 1, in front of what the taker runs."""
    async with pool("sleep", "600", spec={"init": True}) as opened:
        assert (await opened.run(["sh", "-c", "echo $$"])).stdout != b"1\n"
        async with opened.take() as box:
            assert (await box.stop(grace=20)).escalated is False


async def test_a_further_process(pool: OpenPool) -> None:
    """An exec has the environment and the directory of the taken program."""
    async with pool() as opened:
        async with opened.take(["sleep", "600"], env={"A": "b"}, cwd="/tmp") as box:
            done = await box.run(["sh", "-c", "echo $A; pwd"], capture_stdout=True)
    assert done.stdout == b"b\n/tmp\n"


@pytest.mark.parametrize(
    ("wishes", "what", "number", "said"),
    [
        ({"args": ["nowhere"]}, "program", errno.ENOENT, "the program nowhere can't be run: No"),
        ({"args": ["/tmp"]}, "program", errno.EACCES, "/tmp can't be run: Permission denied"),
        ({"cwd": "/nowhere"}, "cwd", errno.ENOENT, "working directory /nowhere: No such"),
        ({"files": {"/bin/x": b"x"}}, "file", errno.EROFS, "/bin/x can't be written: Read-only"),
        ({"files": {"/proc/a": bytes(1 << 20)}}, "file", errno.ENOENT, "/proc/a can't be written"),
    ],
)
async def test_what_cannot_be_had(
    pool: OpenPool, wishes: dict[str, Any], what: str, number: int, said: str
) -> None:
    """A program or directory that can't be had raises at once, isn't reported as the program's
    exit, and leaves nothing."""
    async with pool(size=1) as opened:
        await settled(opened)
        with pytest.raises(GateFailed, match=said) as caught:
            await opened.run(**wishes)
        assert (caught.value.what, caught.value.errno) == (what, number)
        assert caught.value.container is not None
        assert (await opened.run(["sh", "-c", "exit 127"], check=False)).status.code == 127
        await settled(opened)
        assert opened.statistics().failed == 0


@needs_root
async def test_files_that_kill_it(pool: OpenPool) -> None:
    """Files larger than the container's memory make the kernel kill the gate, which isn't reported
    as the program's end."""
    files = {"/tmp/x": bytes(64 << 20)}
    async with pool(size=1, spec={"memory_bytes": 32 << 20}) as opened:
        with pytest.raises(GateFailed, match="memory limit") as caught:
            await opened.run(files=files)
        assert caught.value.what == "killed"


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"args": []}, "args must begin with the program"),
        ({"args": [""]}, "args must begin with the program"),
        ({"args": "true"}, "args must be a sequence"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"args": ["a", "\udc80"]}, "lone surrogate"),
        ({"env": {"A=": "b"}}, "can't be a variable's name"),
        ({"env": {"A": "\0"}}, "NUL"),
        ({"env": ["A=b"]}, "env must be a mapping"),
        ({"cwd": "tmp"}, "cwd must be an absolute path"),
        ({"cwd": "/\0"}, "NUL"),
        ({"files": {"x": b""}}, "a path in files must be an absolute path"),
        ({"files": {"/x": "text"}}, "must be bytes"),
        ({"stdin": "text"}, "stdin"),
        ({"stdin": 0}, "stdin"),
    ],
)
async def test_wishes_that_cannot_work(pool: OpenPool, wishes: dict[str, Any], said: str) -> None:
    """A taker's impossible arguments are refused before anything is touched."""
    async with pool(size=1) as opened:
        await settled(opened)
        with pytest.raises(InvalidValue, match=said):
            async with opened.take(**wishes):
                raise AssertionError("it was handed out")
        with pytest.raises(InvalidValue):
            await opened.run(**wishes)
        assert (opened.statistics().ready, opened.statistics().created) == (1, 1)


@pytest.mark.runtimes("fake")
async def test_run_wants_somebody_to_feed_it(pool: OpenPool) -> None:
    """`run` refuses PIPE, which is for `take`, and a deadline that isn't above 0."""
    async with pool(size=1) as opened:
        with pytest.raises(InvalidValue, match="no caller would write to the stream"):
            await opened.run(stdin=PIPE)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match="deadline"):
            await opened.run(deadline=0)


@pytest.mark.runtimes("fake")
async def test_pools_that_cannot_be(bundle: MakeBundle) -> None:
    """Arguments that don't go together are refused, and a pool opens once."""
    for size in (0, -1, True, 1.5, "4"):
        with pytest.raises(InvalidValue, match="size must be"):
            ContainerPool(bundle("true"), size=size)  # type: ignore[arg-type]
    with pytest.raises(BundleInvalid):
        ContainerPool("/nowhere")
    closed = ContainerPool(bundle("true"))
    assert closed.statistics().ready == 0 and closed.failures == ()
    with pytest.raises(trio.ClosedResourceError):
        await closed.run()


async def test_what_run_says(pool: OpenPool) -> None:
    """`run` raises as `run_container` does: ProcessFailed with the output, DeadlineExpired with the
    time."""
    async with pool(size=2) as opened:
        with pytest.raises(ProcessFailed, match="exited 3; stderr: why; stdout: out") as caught:
            await opened.run(["sh", "-c", "echo out; echo why >&2; exit 3"])
        assert caught.value.stdout == b"out\n"
        with pytest.raises(DeadlineExpired, match=r"longer than 0\.1 seconds"):
            await opened.run(["sleep", "600"], deadline=0.1)
        assert not opened.failures


async def test_a_pool_of_its_own(bundle: MakeBundle, choice: Any) -> None:
    """A pool without a supervisor has an ephemeral one, opens once, and gives nothing once
    closed."""
    opened = ContainerPool(bundle("true"), size=1, runtime=choice.name)
    async with opened:
        assert (await opened.run(["echo", "x"])).stdout == b"x\n"
    with pytest.raises(trio.ClosedResourceError):
        await opened.run()
    with pytest.raises(InvalidValue, match="once"):
        await opened.__aenter__()


async def test_what_a_seccomp_profile_forbids(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """What a seccomp profile forbids is forbidden to the program, too, which the gate only
    becomes."""
    made = bundle("true")
    config = Path(made.path) / "config.json"
    spec = json.loads(config.read_text())
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
        ],
    }
    config.write_text(json.dumps(spec))
    async with (
        supervisor() as sup,
        ContainerPool(Bundle.load(made.path), size=1, supervisor=sup) as opened,
    ):
        done = await opened.run(["busybox", "mkdir", "/tmp/x"], files={"/tmp/y": b""}, check=False)
    assert b"/tmp/x" in done.stderr and b"link" in done.stderr, done  # EXDEV's words
