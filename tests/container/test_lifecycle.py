"""One container on a real runtime, from create to delete."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from supervisor import (
    PIPE,
    STDOUT,
    Bundle,
    Cause,
    IllegalTransition,
    Process,
    ProcessEnded,
    Source,
    State,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import shares_host_pids
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun", "fake"), pytest.mark.rootless]
real_only = pytest.mark.runtimes("runc", "crun")


async def read_all(process: Process) -> bytes:
    assert process.stdout is not None
    async with process.stdout as stream:
        return b"".join([chunk async for chunk in stream])


async def test_whole_life(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """A container goes from created to running to stopped to deleted, and leaves nothing."""
    async with supervisor(root) as sup:
        box = await sup.create("web-1", bundle("sh", "-c", "exit 7"), labels={"a": "b"})
        assert (box.state, box.status, dict(box.labels)) == (
            State.CREATED,
            None,
            {"a": "b"},
        )
        assert list(sup) == ["web-1"] and sup["web-1"] is box
        await box.start()
        status = await box.wait()
        assert (status.code, status.cause, status.source) == (
            7,
            Cause.EXITED,
            Source.SHIM,
        )
        assert status is await box.wait()
        assert (box.state, box.returncode, int(status)) == (State.STOPPED, 7, 7)
        await box.delete()
        assert box.state is State.DELETED and "web-1" not in sup
        assert os.listdir(root) == [".runtime"]


async def test_three_execs_at_once(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Three commands run beside each other in one container, each with streams and exit status of
    its own."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        got: dict[int, tuple[bytes, int | None]] = {}

        async def run(n: int) -> None:
            process = await box.exec(["sh", "-c", f"echo out-{n}; exit {n}"], stdout=PIPE)
            got[n] = (await read_all(process), (await process.wait()).code)

        async with trio.open_nursery() as nursery:
            for n in (1, 2, 3):
                nursery.start_soon(run, n)
        assert got == {n: (f"out-{n}\n".encode(), n) for n in (1, 2, 3)}


async def test_streams(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A program's output repeats the input, closing stdin ends the input, and stderr may go to
    stdout."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        script = "cat; echo end >&2"
        process = await box.exec(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=STDOUT)
        assert process.stdin is not None
        await process.stdin.send_all(b"hello\n")
        await process.stdin.aclose()
        assert await read_all(process) == b"hello\nend\n"
        assert (await process.wait()).code == 0


@needs_root
async def test_init_streams(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> None:
    """An init's streams are pipes or files as asked, and close_stdin ends the input."""
    out = workdir / "err.txt"
    spec = bundle("sh", "-c", "cat; echo oops >&2")
    async with (
        supervisor() as sup,
        await sup.create("a", spec, stdin=PIPE, stdout=PIPE, stderr=out) as box,
    ):
        await box.start()
        assert box.stdin is not None
        await box.stdin.send_all(b"data")
        box.close_stdin()
        assert await read_all(box.init) == b"data"
        assert (await box.wait()).code == 0
        assert out.read_bytes() == b"oops\n"


@real_only
async def test_exec_forgotten_when_collected(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exec's directory stays until its result was collected, and is removed then."""
    async with (
        supervisor(root) as sup,
        await sup.create("a", bundle("sleep", "60")) as box,
    ):
        await box.start()
        process = await box.exec(["true"], id="job")
        while process.status is None:
            await trio.lowlevel.checkpoint()
        assert (root / "a/job/result.json").exists() and "job" in box.processes
        await process.wait()
        with trio.fail_after(10):
            while (root / "a/job").exists() or "job" in box.processes:
                await trio.sleep(0.001)


@real_only
async def test_stop_escalates(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Stopping a process that ignores SIGTERM kills the process after the grace, and reports
    that."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        stopped = await box.stop(grace=0.05)
        assert stopped.escalated and stopped.status.signal is signal.SIGKILL
        again = await box.stop()
        assert not again.escalated and again.status is stopped.status


@real_only
async def test_stop_asks(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Stopping a process that handles SIGTERM lets the process end on its own."""
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 60 & wait; done"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as box,
    ):
        await box.start()
        assert box.stdout is not None
        assert await box.stdout.receive_some() == b"ready\n"
        stopped = await box.stop(grace=30)
        assert (stopped.escalated, stopped.status.code) == (False, 5)


@real_only
async def test_init_forwards(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """With init=True, SIGTERM ends a program that would ignore SIGTERM as pid 1."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sleep", "60", init=True)) as box,
    ):
        await box.start()
        stopped = await box.stop(grace=30)
        assert (stopped.escalated, int(stopped.status)) == (False, 143)


async def test_stop_before_start(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A stop of a container that was never started kills at once: no program is there to be
    asked."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        stopped = await box.stop(grace=60)
        assert stopped.escalated and box.state is State.STOPPED


async def test_delete_created(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container that was never started can be deleted without force, and twice."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.delete()
        await box.delete()
        await box.delete(force=True)
        assert box.state is State.DELETED
        with pytest.raises(ProcessEnded):
            box.kill()


async def test_delete_running_needs_force(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Deleting a running container needs force; without force nothing changes."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        with pytest.raises(IllegalTransition, match="stop the container first"):
            await box.delete()
        assert box.state is State.RUNNING and box.status is None
        await box.delete(force=True)
        assert box.status is not None and box.status.signal is signal.SIGKILL


async def test_block_deletes(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """`async with` on a container deletes the container at the end, also when the block raises."""
    async with supervisor(root) as sup:
        with pytest.raises(ZeroDivisionError):
            async with await sup.create("a", bundle("sleep", "60")) as box:
                await box.start()
                raise ZeroDivisionError
        assert len(sup) == 0 and os.listdir(root) == [".runtime"]


async def test_short_program(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A program that ends at once counts as started, twenty times of twenty."""
    spec = bundle("true")
    async with supervisor() as sup:
        for n in range(20):
            async with await sup.create(f"a{n}", spec) as box:
                await box.start()
                assert (await box.wait()).code == 0


@needs_root
@real_only
async def test_out_of_memory(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A process that the kernel kills for want of memory is distinguished from a killed one."""
    greedy = "x=a; while :; do x=$x$x; done"
    spec = bundle("sh", "-c", greedy, memory_bytes=16 << 20)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        status = await box.wait()
        assert (status.signal, status.oom_killed, status.cause) == (
            signal.SIGKILL,
            True,
            Cause.OUT_OF_MEMORY,
        )
        assert str(status) == "killed by SIGKILL, out of memory"


@needs_root
@real_only
async def test_kill_is_not_out_of_memory(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A process that a signal from outside kills wasn't out of memory."""
    spec = bundle("sleep", "60", memory_bytes=16 << 20)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        box.kill()
        status = await box.wait()
        assert (status.oom_killed, status.cause) == (False, Cause.SIGNALLED)


@needs_root
@real_only
async def test_out_of_memory_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec that is killed for want of memory is reported so, and init's end isn't blamed on
    that.

    An init that was killed later was once called out of memory as well.
    """
    spec = bundle("sleep", "600", memory_bytes=16 << 20)
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        greedy = await box.exec(GREEDY)
        assert (await greedy.wait()).oom_killed
        assert box.pid is not None
        os.kill(box.pid, signal.SIGKILL)
        assert not (await box.wait()).oom_killed


GREEDY = ["sh", "-c", "x=a; while :; do x=$x$x; done"]


@needs_root
@real_only
@pytest.mark.parametrize("how", ["kill", "stop", "delete", "init exits", "init is killed"])
async def test_only_one_exec_was_out_of_memory(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str
) -> None:
    """Of several execs only the one killed for want of memory is called so; once all that were
    ended later were."""
    spec = bundle("cat", memory_bytes=16 << 20)
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE) as box:
        await box.start()
        quiet, restless = [await box.exec(["sleep", "600"]) for _ in range(2)]
        assert (await (await box.exec(GREEDY)).wait()).oom_killed
        assert restless.pid is not None and box.pid is not None and box.stdin is not None
        os.kill(restless.pid, signal.SIGKILL)
        assert not (await restless.wait()).oom_killed
        if how == "kill":
            box.kill()
        elif how == "stop":
            await box.stop(0)
        elif how == "delete":
            await box.delete(force=True)
        elif how == "init exits":
            await box.stdin.aclose()
        else:
            os.kill(box.pid, signal.SIGKILL)
        assert (await quiet.wait()).cause is Cause.SIGNALLED
        assert not (await box.wait()).oom_killed


@needs_root
@real_only
@pytest.mark.parametrize("how", ["kill", "init exits"])
async def test_a_grandchild_was_out_of_memory(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str
) -> None:
    """An out-of-memory kill of an unwatched grandchild isn't blamed on the execs, which are ended
    by other means.

    In the host's pid namespace the execs don't end with init.
    """
    spec = bundle("cat", memory_bytes=16 << 20)
    if how == "kill":
        spec = shares_host_pids(spec)
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE) as box:
        await box.start()
        quiet = await box.exec(["sleep", "600"])
        parent = await box.exec(["sh", "-c", "(x=a; while :; do x=$x$x; done); exit 0"])
        assert (await parent.wait()).code == 0
        assert box.stdin is not None
        if how == "kill":
            box.kill()
        else:
            await box.stdin.aclose()
        assert (await quiet.wait()).cause is Cause.SIGNALLED
        await box.wait()


@needs_root
@real_only
async def test_init_out_of_memory_takes_its_execs_down(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """When the kernel kills pid 1 for want of memory, only init is called so: the others end
    because pid 1 has gone."""
    spec = bundle("sh", "-c", f"read line; {GREEDY[2]}", memory_bytes=16 << 20)
    async with supervisor() as sup, await sup.create("a", spec, stdin=PIPE) as box:
        await box.start()
        quiet = await box.exec(["sleep", "600"])
        assert box.stdin is not None
        await box.stdin.send_all(b"go\n")
        assert (await box.wait()).cause is Cause.OUT_OF_MEMORY
        assert (await quiet.wait()).cause is Cause.SIGNALLED


@needs_root
@real_only
async def test_out_of_memory_behind_an_init(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Behind an init, the program's out-of-memory kill is reported as without one; once it was
    *exited 137*."""
    async with supervisor() as sup:
        spec = bundle(*GREEDY, memory_bytes=16 << 20, init=True)
        async with await sup.create("a", spec) as box:
            await box.start()
            status = await box.wait()
            assert (status.signal, status.cause) == (signal.SIGKILL, Cause.OUT_OF_MEMORY)
            assert str(status) == "killed by SIGKILL, out of memory"
        spec = bundle("sh", "-c", "kill -9 $$", memory_bytes=16 << 20, init=True)
        async with await sup.create("a", spec) as box:
            await box.start()
            assert str(await box.wait()) == "killed by SIGKILL"
        spec = bundle("sh", "-c", f"({GREEDY[2]}); exit 137", memory_bytes=16 << 20, init=True)
        async with await sup.create("a", spec) as box:
            await box.start()
            assert str(await box.wait()) == "exited 137"  # as the init itself reports


@needs_root
@real_only
async def test_exec_inherits(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec has init's process object, with only what was given replaced."""
    spec = bundle("sleep", "60", env={"A": "1", "B": "2"}, user="1000:1000")
    script = "echo $A $B $C; pwd; id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status"
    async with supervisor() as sup, await sup.create("a", spec) as box:
        await box.start()
        process = await box.exec(
            [
                "busybox",
                "sh",
                "-c",
                script.replace("id ", "busybox id ").replace("grep", "busybox grep"),
            ],
            env={"B": "two", "C": "3"},
            cwd="/tmp",
            stdout=PIPE,
        )
        lines = (await read_all(process)).decode().splitlines()
        assert lines[:3] == ["1 two 3", "/tmp", "1000"]
        assert "NoNewPrivs:\t1" in lines
        assert (await process.wait()).code == 0
        root = await box.exec(["busybox", "id", "-u"], user=0, stdout=PIPE)
        assert await read_all(root) == b"0\n"


@real_only
async def test_clean_start(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Init and exec start with nothing blocked and nothing ignored."""
    look = ["busybox", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]  # sh would ignore some
    nothing = [b"SigBlk:\t0000000000000000", b"SigIgn:\t0000000000000000"]
    async with supervisor() as sup:
        async with await sup.create("a", bundle(*look), stdout=PIPE) as box:
            await box.start()
            assert (await read_all(box.init)).splitlines() == nothing
        async with await sup.create("b", bundle("sleep", "600")) as box:
            await box.start()
            process = await box.exec(look, stdout=PIPE)
            assert (await read_all(process)).splitlines() == nothing


@real_only
async def test_only_three_descriptors(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """No descriptor of ours is visible inside, from init or exec, under any kind of stdio."""
    look = ["busybox", "ls", "/proc/self/fd"]
    leak, other = os.pipe()
    os.set_inheritable(leak, True)
    try:
        async with (
            supervisor() as sup,
            await sup.create("a", bundle(*look), stdin=PIPE, stdout=PIPE, stderr=PIPE) as box,
        ):
            await box.start()
            # ls has 3 open, the directory that ls reads.
            assert (await read_all(box.init)).split() == [b"0", b"1", b"2", b"3"]
            async with await sup.create("b", bundle("sleep", "60")) as second:
                await second.start()
                process = await second.exec(look, stdin=PIPE, stdout=PIPE)
                assert (await read_all(process)).split() == [b"0", b"1", b"2", b"3"]
    finally:
        os.close(leak)
        os.close(other)


async def test_from_host_needs_no_image(supervisor: OpenSupervisor) -> None:
    """A bundle made of the host's own programs runs a shell."""
    with Bundle.from_host(["sh", "-c", "echo from the host"]) as spec:
        async with supervisor() as sup, await sup.create("a", spec, stdout=PIPE) as box:
            await box.start()
            assert await read_all(box.init) == b"from the host\n"
            assert (await box.wait()).code == 0


async def test_ephemeral_leaves_nothing(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Without a root, containers that were not deleted go with the block, and so does the root."""
    async with supervisor() as sup:
        root = sup.root
        for n in range(3):
            await (await sup.create(f"a{n}", bundle("sleep", "60"))).start()
        assert len(os.listdir(root)) >= 3
    assert not os.path.exists(root)


@real_only
async def test_bundle_may_go(supervisor: OpenSupervisor) -> None:
    """A container works on when the temporary bundle that it was made from is removed.

    The kernel takes a mount away where the mount point is removed: the container once lost /usr as
    soon as the caller's Bundle was garbage.
    """
    async with supervisor() as sup:
        spec = Bundle.from_host(["sleep", "600"])
        async with await sup.create("a", spec) as box:
            await box.start()
            spec.close()
            process = await box.exec(["sh", "-c", "ls /usr/bin/env && exit 6"])
            assert (await process.wait()).code == 6
