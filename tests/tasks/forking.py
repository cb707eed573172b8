"""A supervising program that forks inside its block.

The program prints a JSON object: how the child ended, and what the program found afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    PIPE,
    AlreadyAttached,
    Bundle,
    Container,
    ContainerPool,
    Runtime,
    Supervisor,
    SupervisorClosed,
    open_supervisor,
)
from supervisor.testing import SharedPool, SupervisorThread
from supervisor.testing._held import held_directory
from supervisor.testing._processes import command
from tests.support.forker import Forker
from tests.support.runtimes import Choice

PATIENCE_SECONDS = 40.0
PROMPT_SECONDS = 5.0


def play(forker: Forker, choice: Choice, **told: Any) -> dict[str, Any]:
    """Run one play to the end; return what the program found.

    Args:
        told: ``how`` (the name of a function of this module), ``waiting``, ``root`` (or None),
            ``cgroup_parent``, ``rootfs``, ``diary`` (a file that the child writes to).
    """
    runtime = choice.runtime()
    told |= {"runtime": [runtime.path, *runtime.args], "runtime_root": runtime.root}
    with forker.program(f"{__name__}:main", told) as program:
        code = program.wait(PATIENCE_SECONDS)
        lines = program.output.splitlines()
        assert program.complaints == ""  # nothing to be undone has failed
    assert code == 0 and len(lines) == 1, (code, lines)
    found: dict[str, Any] = json.loads(lines[0])
    return found


@attrs.frozen
class Stage:
    """What the program has when it forks."""

    told: dict[str, Any]
    sup: Supervisor
    box: Container
    pool: ContainerPool
    bundle: Bundle

    def note(self, what: str) -> None:
        """Write a line of the child's diary."""
        with open(self.told["diary"], "a") as file:
            file.write(f"{what}\n")


_BESIDE_PYTHON = ctypes.CDLL(None)


# ---- what a child does -------------------------------------------------------------------


async def exits(stage: Stage) -> NoReturn:
    """End in the middle of all blocks."""
    sys.exit(3)


async def exits_from_c(stage: Stage) -> NoReturn:
    """End in the middle of all blocks, where Python wasn't told of the fork."""
    await exits(stage)


async def raises(stage: Stage) -> NoReturn:
    """Let an error out of all blocks."""
    raise LookupError("the child's own")


async def returns(stage: Stage) -> None:
    """Leave all blocks, as the parent would."""


async def goes_on(stage: Stage) -> None:
    """Try everything; each operation has to raise at once, because the child owns nothing."""
    for name, operation in _operations(stage).items():
        with trio.move_on_after(PROMPT_SECONDS) as scope:
            try:
                await operation()
                stage.note(f"{name}: done")
            except SupervisorClosed:
                stage.note(f"{name}: refused")
            except BaseException as error:
                stage.note(f"{name}: {error!r}")
        if scope.cancelled_caught:
            stage.note(f"{name}: too long")


def _operations(stage: Stage) -> dict[str, Callable[[], Awaitable[object]]]:
    box, sup = stage.box, stage.sup
    assert box.stdin is not None and box.stdout is not None
    shell = sup["terminal"]

    def sync(function: Callable[..., object], *args: object) -> Callable[[], Awaitable[object]]:
        async def call() -> object:
            return function(*args)

        return call

    async def take() -> None:
        async with stage.pool.take(["sleep", "60"]):
            pass

    async def another() -> None:
        root = f"{stage.told['diary']}-root"
        try:
            async with open_supervisor(root, runtime=sup.runtime):
                pass
        finally:
            if os.path.exists(root):
                stage.note("open: it has made its root")

    return {
        "create": lambda: sup.create("other", stage.bundle),
        "adopt": sup.adopt,
        "delete_broken": lambda: sup.delete_broken("other"),
        "start": sup["created"].start,
        "exec": lambda: box.exec(["true"]),
        "run": lambda: box.run(["true"]),
        "wait": box.wait,
        "stop": lambda: box.stop(1),
        "delete": lambda: box.delete(force=True),
        "kill": sync(box.kill),
        "terminate": sync(box.terminate),
        "resize": sync(shell.resize, 80, 24),
        "attach": shell.attach,
        "receive": box.stdout.receive_some,
        "send": lambda: box.stdin.send_all(b"x"),  # type: ignore[union-attr]
        "close_stdin": sync(box.close_stdin),
        "take": take,
        "pool.run": lambda: stage.pool.run(["true"]),
        "wait_full": stage.pool.wait_full,
        "open": another,
    }


async def begins_again(stage: Stage) -> None:
    """Leave the parent's run, and have a run and a supervisor of the child's own."""
    _AFTERWARDS.append(lambda: trio.run(_own, stage))


async def _own(stage: Stage) -> None:
    runtime = stage.sup.runtime
    async with open_supervisor(runtime=runtime, cgroup_parent=stage.told["cgroup_parent"]) as sup:
        async with await sup.create("own", stage.bundle, args=["echo", "own"], stdout=PIPE) as box:
            await box.start()
            assert box.stdout is not None
            stage.note((await box.stdout.receive_some()).decode().strip())


_AFTERWARDS: list[Callable[[], object]] = []


# ---- the program --------------------------------------------------------------------------


async def _forking(told: dict[str, Any]) -> dict[str, Any]:
    parent = os.getpid()
    async with _stage(told) as stage, _waiting(stage, told["waiting"]):
        if told["how"] == "multiprocessing":
            ended = await _multiprocess()
        else:
            pid = _BESIDE_PYTHON.fork() if told["how"] == "exits_from_c" else os.fork()
            if pid == 0:
                await globals()[told["how"]](stage)
                return {}
            with trio.fail_after(PATIENCE_SECONDS / 2):
                _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
            ended = os.waitstatus_to_exitcode(status)
        assert os.getpid() == parent
        return {"child": ended, **await _look(stage)}


@contextlib.asynccontextmanager
async def _stage(told: dict[str, Any]) -> AsyncIterator[Stage]:
    path, *args = told["runtime"]
    runtime = Runtime(path=path, args=args, root=told["runtime_root"])
    bundle = Bundle.from_rootfs(told["rootfs"], ["cat"])
    where: dict[str, Any] = {"runtime": runtime, "cgroup_parent": told["cgroup_parent"]}
    async with (
        open_supervisor(told["root"], **where) as sup,
        ContainerPool(bundle, supervisor=sup, size=1) as pool,
        await sup.create("created", bundle),
        await sup.create("terminal", bundle, args=["sh"], terminal=True) as shell,
        await sup.create("box", bundle, stdin=PIPE, stdout=PIPE) as box,
    ):
        await shell.start()
        await box.start()
        await pool.wait_full()
        yield Stage(told=told, sup=sup, box=box, pool=pool, bundle=bundle)


@contextlib.asynccontextmanager
async def _waiting(stage: Stage, wanted: bool) -> AsyncIterator[None]:
    """Have tasks that wait for everything that can be waited for at the fork."""
    if not wanted:
        yield
        return
    parent = os.getpid()
    async with trio.open_nursery() as nursery:
        attached = await stage.sup["terminal"].attach()
        assert stage.box.stdout is not None
        for name, wait in {
            "exits": stage.box.wait,
            "receives": stage.box.stdout.receive_some,
            "attached": lambda: _read_all(attached),
            "runs": lambda: stage.box.run(["sleep", "100"], check=False),
            "ran": lambda: stage.pool.run(["sleep", "100"]),
        }.items():
            nursery.start_soon(_wait, stage, name, wait)
        while len(stage.box.processes) < 2 or not stage.pool.statistics().taken:
            await trio.sleep(0.01)
        await wait_all_tasks_blocked(0.05)
        yield
        if os.getpid() == parent:
            nursery.cancel_scope.cancel()


async def _read_all(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


async def _wait(stage: Stage, name: str, wait: Callable[[], Awaitable[object]]) -> None:
    parent = os.getpid()
    try:
        await wait()
    except BaseException as error:
        if os.getpid() != parent:
            stage.note(f"{name}: {type(error).__name__}")
            return
        raise


async def _multiprocess() -> int | None:
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(4,))
    process.start()
    with trio.fail_after(PATIENCE_SECONDS / 2):
        await trio.to_thread.run_sync(process.join)
    return process.exitcode


async def _look(stage: Stage) -> dict[str, Any]:
    """Return what the parent has left, and whether that works."""
    box, sup = stage.box, stage.sup
    assert box.stdin is not None and box.stdout is not None
    with trio.fail_after(PATIENCE_SECONDS / 2):
        found = {
            "states": [sup[id].state.value for id in ("box", "created", "terminal")],
            "root": os.path.isdir(sup.root),
            "bundle": os.path.isdir(stage.bundle.path),
            "keepers": _keepers(sup.root),
            "exec": (await box.run(["echo", "x"], capture_stdout=True)).stdout.decode(),  # type: ignore[union-attr]
            "pool": (await stage.pool.run(["echo", "y"])).status.code,
            "thread": await trio.to_thread.run_sync(os.getpid) == os.getpid(),
        }
        if not stage.told["waiting"]:  # otherwise a task of ours receives
            await box.stdin.send_all(b"z")
            found["stream"] = (await box.stdout.receive_some()).decode()
        await sup["created"].start()
        found["stopped"] = (await sup["terminal"].stop(0)).status.signal
        await box.delete(force=True)
        return found


def _keepers(root: str) -> int:
    """Return how many keepers of a root there are."""
    pids = filter(str.isdigit, os.listdir("/proc"))
    lines = [command(int(pid)) for pid in pids]
    return sum("supervisor-keeper" in line and root in line for line in lines)


async def _outlived(told: dict[str, Any]) -> dict[str, Any]:
    """Close our ends of streams while a forked child lives on with all its copies."""
    async with _stage(told) as stage:
        sup, box = stage.sup, stage.box
        assert box.stdin is not None
        writer = await sup["terminal"].exec(["sh", "-c", "while echo y; do :; done"], stdout=PIPE)
        assert writer.stdout is not None
        attached = await sup["terminal"].attach()
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:  # as multiprocessing's, which knows nothing of us
            os.close(write_fd)
            os.read(read_fd, 1)
            os._exit(8)
        os.close(read_fd)
        try:
            found = {"cat": None, "writer": None}
            with trio.move_on_after(PROMPT_SECONDS):
                await box.stdin.aclose()
                found["cat"] = (await box.wait()).code
                await writer.stdout.aclose()
                found["writer"] = (await writer.wait()).signal
            await attached.aclose()
            with trio.fail_after(PROMPT_SECONDS):
                while True:
                    try:
                        attached = await sup["terminal"].attach()
                        break
                    except AlreadyAttached:
                        await trio.sleep(0.01)
            await attached.aclose()
        finally:
            os.close(write_fd)
            _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0)
        return {**found, "child": os.waitstatus_to_exitcode(status)}


# ---- without Trio -------------------------------------------------------------------------


def _in_threads(told: dict[str, Any]) -> dict[str, Any]:
    """Fork where a supervisor, and a pool, live in threads: the child has neither thread."""
    path, *args = told["runtime"]
    runtime = Runtime(path=path, args=args, root=told["runtime_root"])
    bundle = Bundle.from_rootfs(told["rootfs"], ["cat"])
    sleeping = Bundle.from_rootfs(told["rootfs"], ["sleep", "100"])
    with (
        held_directory() as held,
        SupervisorThread(runtime=runtime, cgroup_parent=told["cgroup_parent"]) as thread,
        SharedPool(bundle, size=1, runtime=runtime) as pool,
    ):
        box = thread.run_sync(thread.supervisor.create, "box", sleeping)
        pid = os.fork()
        if pid == 0:
            for ask in (lambda: thread.run_sync(box.start), lambda: pool.run_sync(["true"])):
                try:
                    ask()
                except SupervisorClosed:
                    continue
                os._exit(1)
            sys.exit(5)
        begun = time.monotonic()
        _, status = os.waitpid(pid, 0)
        assert time.monotonic() - begun < 2 * PROMPT_SECONDS, "it waited for its parent's keeper"
        thread.run_sync(box.start)
        return {
            "child": os.waitstatus_to_exitcode(status),
            "state": box.state.value,
            "held": os.path.isdir(held),
            "pool": pool.run_sync(["true"]).status.code,
        }


def main(told: dict[str, Any]) -> None:
    """Run the play; a child ends in its own way."""
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # Python 3.12 and newer
    parent = os.getpid()
    if told["how"] == "in_threads":
        found = _in_threads(told)
    elif told["how"] == "outlived":
        found = trio.run(_outlived, told)
    else:
        try:
            found = trio.run(_forking, told)
        except LookupError as error:
            if os.getpid() == parent or error.args != ("the child's own",):
                raise
            sys.exit(6)
        except BaseExceptionGroup as group:  # of the nursery that is ours
            exits, others = group.split(SystemExit)
            if os.getpid() == parent or exits is None or others is not None:
                raise
            sys.exit(3)
    if os.getpid() != parent:
        for afterwards in _AFTERWARDS:
            afterwards()
        sys.exit(0)
    print(json.dumps(found))
