"""``run_container`` and ``Container.run``, in the manner of ``trio.run_process``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    DEVNULL,
    PIPE,
    Container,
    ContainerPool,
    DeadlineExpired,
    Deadlines,
    InvalidValue,
    Process,
    ProcessFailed,
    ProgramNotFound,
    State,
    run_container,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until


async def test_what_comes_back(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A run returns the status, what was captured and nothing else; the container is gone."""
    async with supervisor() as sup:
        spec = bundle("sh", "-c", "echo out; echo err >&2")
        done = await run_container(spec, supervisor=sup, capture_stdout=True)
        assert (done.stdout, done.stderr, done.returncode, done.held) == (b"out\n", None, 0, ())
        assert done.args[0] == "sh" and done.status.code == 0
        assert not list(sup)


async def test_without_a_supervisor(choice: Any, bundle: MakeBundle) -> None:
    """A run without a supervisor opens an ephemeral one."""
    done = await run_container(
        bundle("cat"), runtime=choice.runtime(), stdin=b"x", capture_stdout=True
    )
    assert done.stdout == b"x"


async def test_changes(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Arguments, variables and the working directory may differ from the bundle's."""
    script = "echo $A $B; pwd"
    async with supervisor() as sup:
        done = await run_container(
            bundle("true", env={"A": "1", "B": "2"}),
            supervisor=sup,
            args=["sh", "-c", script],
            env={"B": "3"},
            cwd="/tmp",
            capture_stdout=True,
        )
    assert done.stdout == b"1 3\n/tmp\n"


async def test_other_arguments_keep_the_init(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """With other arguments, a bundle with ``init=True`` still runs its init in front."""
    spec = bundle("true", init=True)
    async with supervisor() as sup, await sup.create("a", spec, args=["sleep", "60"]) as box:
        await box.start()
        stopped = await box.stop(grace=30)
        assert (stopped.status.signal, stopped.escalated) == (signal.SIGTERM, False)
        done = await run_container(spec, supervisor=sup, args=["echo", "hi"], capture_stdout=True)
        assert done.stdout == b"hi\n"


@pytest.mark.parametrize("inside", [False, True])
async def test_check(supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool) -> None:
    """A program that fails raises, with all that is known, unless ``check`` is false."""
    args = ["sh", "-c", "echo out; echo because >&2; exit 3"]
    options: dict[str, Any] = {"capture_stdout": True, "capture_stderr": True}
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()

        async def run(**more: Any) -> Any:
            if inside:
                return await box.run(args, **options, **more)
            return await run_container(bundle("true"), supervisor=sup, args=args, **options, **more)

        with pytest.raises(ProcessFailed, match=r"exited 3.*because") as raised:
            await run()
        error = raised.value
        assert (error.returncode, error.stdout, error.stderr) == (3, b"out\n", b"because\n")
        assert error.command == tuple(args) and error.status.code == 3
        assert (await run(check=False)).returncode == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"capture_stdout": True, "stdout": PIPE},
        {"capture_stderr": True, "stderr": "/tmp/x"},
        {"stdout": PIPE},
        {"stderr": PIPE},
        {"stdin": PIPE},
        {"deadline": 0},
        {"deadline": -1.0},
        {"deadline": float("nan")},
        {"deadline": "1"},
    ],
    ids=str,
)
async def test_what_does_not_go_together(
    supervisor: OpenSupervisor, bundle: MakeBundle, wrong: dict[str, Any]
) -> None:
    """Arguments that exclude each other are refused before anything is touched."""
    async with supervisor() as sup:
        with pytest.raises(InvalidValue):
            await run_container(bundle("true"), supervisor=sup, **wrong)
        assert not list(sup)


async def test_a_program_that_is_not_there(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A run of a missing program names the program, and leaves nothing."""
    async with supervisor() as sup:
        with pytest.raises(ProgramNotFound, match="nowhere"):
            await run_container(bundle("nowhere"), supervisor=sup, capture_stderr=True)
        assert not list(sup) and not sup.broken


async def test_nursery_start(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """``nursery.start`` returns the container, or the process, as soon as the program runs."""
    async with supervisor() as sup, trio.open_nursery() as nursery:
        box: Container = await nursery.start(
            lambda task_status: run_container(
                bundle("sleep", "60"), supervisor=sup, check=False, task_status=task_status
            )
        )
        process: Process = await nursery.start(
            lambda task_status: box.run(["sleep", "60"], check=False, task_status=task_status)
        )
        assert process.pid is not None and box.pid is not None
        process.kill()
        box.kill()


@pytest.mark.parametrize("inside", [False, True])
async def test_deadline(supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool) -> None:
    """A program that runs longer than the deadline is ended, and the error says so."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with (
            trio.fail_after(20),
            pytest.raises(DeadlineExpired, match=r"longer than 0\.2") as raised,
        ):
            if inside:
                await box.run(["sleep", "61"], deadline=0.2)
            else:
                spec = bundle("sleep", "61", init=True)
                await run_container(spec, supervisor=sup, deadline=0.2)
        assert raised.value.seconds == 0.2
        assert list(sup) == ["a"]


@pytest.mark.parametrize("how", ["run_container", "run", "pool"])
async def test_deadline_keeps_the_output(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str
) -> None:
    """The error of an expired deadline has the program's output so far, and the last part in the
    message.

    Once the output was lost, and with it where the program was stuck.
    """
    args = ["sh", "-c", "echo out; echo err >&2; exec sleep 61"]
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with pytest.raises(DeadlineExpired) as raised:
            if how == "run_container":
                spec = bundle("true", init=True)
                await run_container(
                    spec, supervisor=sup, args=args, capture_stdout=True, deadline=0.5
                )
            elif how == "run":
                await box.run(args, capture_stdout=True, deadline=0.5)
            else:
                spec = bundle("true", init=True)
                async with ContainerPool(spec, size=1, supervisor=sup, stderr=DEVNULL) as pool:
                    await pool.run(args, deadline=0.5)
        assert (raised.value.stdout, raised.value.stderr) == (b"out\n", None)
        assert str(raised.value).endswith("seconds and was ended; stdout: out")


@pytest.mark.parametrize("kind", ["output", "input", "exec", "pool"])
async def test_deleted_meanwhile(supervisor: OpenSupervisor, bundle: MakeBundle, kind: str) -> None:
    """A run whose container another task deletes gets the program's exit status, and no more."""
    flood = ["sh", "-c", "exec cat /dev/zero"]
    most = 1 << 28  # it is deleted long before; a flood without a bound would kill the test process
    captured: dict[str, Any] = {"capture_stdout": True, "max_output_bytes": most}
    async with supervisor() as sup:

        async def run() -> object:
            if kind == "output":
                return await run_container(bundle(*flood), supervisor=sup, **captured)
            if kind == "input":
                return await run_container(
                    bundle("sleep", "60"), supervisor=sup, stdin=bytes(1 << 20)
                )
            if kind == "pool":
                async with ContainerPool(bundle("true"), size=1, supervisor=sup) as pool:
                    return await pool.run(["/bin/busybox", *flood], max_output_bytes=most)
            async with await sup.create("a", bundle("sleep", "60")) as box:
                await box.start()
                return await box.run(flood, **captured)

        async def fail() -> None:
            with pytest.raises(ProcessFailed) as caught:
                await run()
            assert caught.value.returncode == -signal.SIGKILL

        def running() -> list[Container]:
            return [box for box in sup.values() if box.state is State.RUNNING]

        def begun() -> bool:
            # A pool that loses a container before the program runs takes another one.
            processes = [process for box in running() for process in box.processes.values()]
            wanted = "sleep\n" if kind == "input" else "cat\n"
            return any(
                process.pid is not None
                and Path(f"/proc/{process.pid}/comm").read_text("utf-8") == wanted
                for process in processes
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await until(begun, "it runs")
            for box in running():
                if kind != "pool" or box.init.args[-1] == flood[-1]:
                    for process in box.processes.values():
                        process._task.streams.close()  # as a delete may, before all output was read
                    await box.delete(force=True)


async def test_a_grandchild_holds_the_output(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A grandchild that holds the output doesn't delay the end of the run, and is named in the
    result."""
    async with (
        supervisor(deadlines=Deadlines(drain=0.3)) as sup,
        await sup.create("a", bundle("sleep", "60")) as box,
    ):
        await box.start()
        script = "sleep 50 & echo hi"
        process = await box.exec(["sh", "-c", script], stdout=PIPE)
        with trio.fail_after(5):
            assert (await process.wait()).code == 0
        assert process.stdout is not None
        await process.stdout.aclose()
        begin = trio.current_time()
        done = await box.run(["sh", "-c", script], capture_stdout=True)
        assert 0.3 <= trio.current_time() - begin < 5
        assert done.stdout == b"hi\n" and done.returncode == 0
        [holder] = done.held
        assert (holder.stream, holder.program) == ("stdout", "sleep") and holder.pid is not None
        assert str(holder).startswith("stdout: sleep (pid ")
