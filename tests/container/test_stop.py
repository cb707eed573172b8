"""Stops: which signal is sent, for how long the stop waits, who sees the stop, and what is left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from supervisor import (
    PIPE,
    Bundle,
    Cause,
    Container,
    InvalidValue,
    State,
    run_container,
)
from supervisor.state import Asked, ContainerRecord, Intent, load, read_asked, write_asked
from supervisor.system import _pid1
from supervisor.system._pid1 import would_act_on
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import hurried, pid_in, state_of, until
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.rootless

SLOW = "sleep 0.4; trap 'exit 7' TERM; while :; do sleep 0.05; done"
"""A program that has its handler a while after the start, as any larger program."""

DEAF = "trap '' TERM; while :; do sleep 0.05; done"

FETCHES = """
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
static sigset_t wanted;
static void *fetch(void *nothing) {
    int number;
    while (sigwait(&wanted, &number) != 0 || number != SIGTERM) {}
    exit(7);
}
int main(int argc, char **argv) {
    pthread_t thread;
    struct signalfd_siginfo info;
    struct timespec soon = {0, 0};
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &wanted, NULL);
    if (argc < 2) return 2;
    if (strcmp(argv[1], "sigwait") == 0) fetch(NULL);
    if (strcmp(argv[1], "signalfd") == 0)
        return read(signalfd(-1, &wanted, 0), &info, sizeof info) > 0 ? 7 : 2;
    if (strcmp(argv[1], "thread") == 0 && pthread_create(&thread, NULL, fetch, NULL) == 0)
        for (;;) pause();
    while (sigtimedwait(&wanted, NULL, &soon) != SIGTERM) usleep(1000);
    return 7;
}
"""
"""``fetches HOW``: a program without a handler for SIGTERM that exits with 7 when it fetches
SIGTERM."""


@pytest.fixture(scope="module")
def fetches(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put the program into the root filesystem."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = tmp_path_factory.mktemp("fetches") / "fetches.c"
    source.write_text(FETCHES)
    command = [compiler, "-w", "-static", "-pthread", "-o", rootfs / "bin/fetches", source]
    subprocess.run(command, check=True)


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("who", ["owner", "looks on", "adopts"])
async def test_a_handler_that_comes_late(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, who: str
) -> None:
    """A stop asks a program whose handler comes late once the handler is there; once the signal
    came too early, was lost, and wasn't repeated."""
    async with supervisor(root) as one, supervisor(root) as two:
        box = await one.create("a", bundle("sh", "-c", SLOW))
        await box.start()
        await two.adopt()
        if who != "adopts":
            stopped = await (box if who == "owner" else two["a"]).stop(grace=20)
            assert (stopped.status.code, stopped.escalated) == (7, False)
            await box.delete()
    if who == "adopts":
        async with supervisor(root) as sup, sup["a"] as box:
            stopped = await box.stop(grace=20)
            assert (stopped.status.code, stopped.escalated) == (7, False)


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.usefixtures("fetches")
@pytest.mark.parametrize("how", ["sigwait", "signalfd", "thread", "polls"])
async def test_one_that_fetches_its_signals(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str
) -> None:
    """A program that waits by sigwait, as tini does, is asked: the program blocks its signals, but
    not while waiting. Once the stop never asked, and killed the program when the grace was over."""
    async with supervisor() as sup, await sup.create("a", bundle("fetches", how)) as box:
        await box.start()
        stopped = await box.stop(grace=20)
        assert (stopped.status.code, stopped.escalated) == (7, False)


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.usefixtures("fetches")
@pytest.mark.parametrize(
    ("how", "wanted"), [("sigwait", True), ("signalfd", True), ("thread", True), ("polls", None)]
)
async def test_who_fetches_its_signals_is_known(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str, wanted: bool | None
) -> None:
    """A program that visibly fetches its signals needn't be watched for a while; otherwise a
    blocked signal doesn't show that the program will ever fetch it."""
    async with supervisor() as sup, await sup.create("a", bundle("fetches", how)) as box:
        await box.start()
        pid = box.init.pid
        assert pid is not None
        await until(lambda: would_act_on(pid, signal.SIGTERM, gate=None) is wanted, "it waits")
        assert would_act_on(pid, signal.SIGUSR1, gate=None) is (
            how == "sigwait"
        )  # which signals it waits for isn't seen


async def test_everybody_sees_it(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The stopping supervisor, the owner and an onlooker all see *stopping*, and no longer when the
    stop is given up."""
    async with supervisor(root) as one, supervisor(root) as two:
        box = await one.create("a", bundle("sh", "-c", DEAF))
        async with box:
            await box.start()
            await two.adopt()
            both = (box, two["a"])
            for asking in both:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(asking.stop, 60)
                    await until(lambda: all(b.state is State.STOPPING for b in both), "seen")
                    async with trio.open_nursery():
                        process = await box.exec(["true"])
                        await process.wait()
                    nursery.cancel_scope.cancel()
                assert [b.state for b in both] == [State.RUNNING, State.RUNNING]
            stopped = await box.stop(0.05)
            assert stopped.escalated
            await two["a"].wait()
            assert [b.state for b in both] == [State.STOPPED, State.STOPPED]
            assert next(c.state for c in box.history if c.event == "stop") is State.STOPPING


async def test_a_container_of_its_own_mind(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The bundle says which signal stops the container and for how long; `create` may override
    both; both are on disk."""
    script = "trap 'exit 10' USR1; trap 'exit 12' USR2; while :; do sleep 0.05; done"
    made = bundle("sh", "-c", script)
    config = Path(made.path, "config.json")
    annotations = {"org.opencontainers.image.stopSignal": "SIGUSR1"}
    config.write_text(json.dumps({**json.loads(config.read_text()), "annotations": annotations}))
    async with supervisor(root) as sup:
        a = await sup.create("a", Bundle.load(made.path))
        b = await sup.create("b", Bundle.load(made.path), stop_signal="USR2", stop_grace=60.5)
        assert (a.stop_signal, a.stop_grace) == (signal.SIGUSR1, 10)
        for box in (a, b):
            await box.start()
    async with supervisor(root) as sup, sup["a"] as a, sup["b"] as b:
        assert (b.stop_signal, b.stop_grace) == (signal.SIGUSR2, 60.5)
        assert (await a.stop()).status.code == 10
        assert (await b.stop()).status.code == 12


@pytest.mark.parametrize("asked", ["USR1", "TERM"])
async def test_a_run_of_its_own_mind(
    supervisor: OpenSupervisor, bundle: MakeBundle, asked: str
) -> None:
    """A cancelled run is stopped with the run's own signal and grace."""
    script = "trap 'exit 10' USR1; trap '' TERM; echo; while :; do sleep 0.05; done"
    wish: dict[str, Any] = {"stop_signal": asked, "stop_grace": 60 if asked == "USR1" else 0.2}
    warns: Any = contextlib.nullcontext()
    if asked == "TERM":
        warns = pytest.warns(RuntimeWarning, match=r"ignored SIGTERM for 0\.2 seconds")
    async with supervisor() as sup:
        run = partial(run_container, supervisor=sup, stdout=PIPE, **wish)
        with warns:
            async with trio.open_nursery() as nursery:
                box: Container = await nursery.start(run, bundle("sh", "-c", script))
                assert box.stdout is not None
                async with box.stdout:
                    assert await box.stdout.receive_some() == b"\n"
                nursery.cancel_scope.cancel()
        assert box.status is not None
        assert box.status.returncode == (10 if asked == "USR1" else -signal.SIGKILL)


@pytest.mark.runtimes("fake")
async def test_a_bundle_that_is_made(
    supervisor: OpenSupervisor, workdir: Path, choice: Choice
) -> None:
    """The config.json of a bundle that we make names the stop signal as images do."""
    made = Bundle.from_host(["true"], stop_signal="RTMIN+3", stop_grace=2)
    told = json.loads(Path(made.path, "config.json").read_text())["annotations"]
    assert told["org.opencontainers.image.stopSignal"] == str(signal.SIGRTMIN + 3)
    async with supervisor() as sup, await sup.create("a", Bundle.load(made.path)) as box:
        assert (box.stop_signal, box.stop_grace) == (signal.SIGRTMIN + 3, 2)


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize(
    "bad",
    [{"stop_signal": b} for b in ("", "SIGNOTHING", 0, 65, True, 1.5, "RTMIN+99", "0", "0150")]
    + [{"stop_grace": b} for b in (-1, "10", True, float("nan"))],
    ids=str,
)
async def test_no_wish(supervisor: OpenSupervisor, bundle: MakeBundle, bad: Any) -> None:
    """An invalid signal or grace is refused by name."""
    (name,) = bad
    async with supervisor() as sup:
        with pytest.raises(InvalidValue, match=name):
            await sup.create("a", bundle("true"), **bad)
    with pytest.raises(InvalidValue, match=name):
        Bundle.from_host(["true"], **bad)


async def test_asked_with_sigkill(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A stop with SIGKILL doesn't wait for a handler: once all of the grace passed, though no
    program can have one."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "60"), stop_signal="KILL") as box:
            await box.start()
            with trio.fail_after(5):
                stopped = await box.stop(3600)
            assert (stopped.status.signal, stopped.escalated) == (signal.SIGKILL, False)


def test_a_look_at_many_descriptors() -> None:
    """Of a program with very many descriptors only some are looked at, because the look runs in
    Trio's thread."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.callback(os.close, os.eventfd(0))
        assert len(_pid1._some("/proc/self/fd")) < 100
        assert _pid1._some("/proc/self/no such directory") == []


@pytest.mark.parametrize("sent", [False, True])
async def test_finished_by_the_next_open(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, sent: bool
) -> None:
    """The next open finishes a stop with the same signal and grace, and doesn't send the signal
    twice; once it was SIGTERM and ten seconds."""
    script = "trap 'exit 10' USR1; trap 'exit 15' TERM; while :; do sleep 0.05; done"
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sh", "-c", script))
        await box.start()
    now = _now_ns()
    left = 60_000_000_000 if not sent else 500_000_000
    write_asked(str(root / "a/init/stopping"), Asked(signal.SIGUSR1, now, now + left, sent))
    async with supervisor(root) as sup, sup["a"] as box:
        assert box.state is State.STOPPING
        status = await box.wait()
        assert (status.code, status.signal) == ((None, 9) if sent else (10, None))


async def test_what_is_on_disk(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The disk holds the stop's signal, its deadline, and whether the signal was sent."""
    path = str(root / "a/init/stopping")
    async with supervisor(root) as sup, await sup.create("a", bundle("sh", "-c", DEAF)) as box:
        await box.start()
        before = _now_ns()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: box.stop(50, ask_with="USR1"))
            await until(lambda: read_asked(path), "it is on record")
            asked = read_asked(path)
            assert asked is not None
            assert asked.signal == signal.SIGUSR1 and not asked.sent  # a signal that is never heard
            assert before <= asked.since_ns <= _now_ns()
            assert asked.until_ns == asked.since_ns + 50_000_000_000
            nursery.cancel_scope.cancel()
        assert read_asked(path) is None


async def test_one_that_is_stale(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A container whose stop an onlooker began isn't *stopping* for ever when the onlooker is
    killed."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        path = str(root / "a/init/stopping")
        write_asked(path, Asked(15, 0, _now_ns() - 3600_000_000_000))
        assert box.state is State.RUNNING
        Path(path).write_text("rubbish")
        assert box.state is State.RUNNING


def _without_pids(spec: dict[str, Any]) -> dict[str, Any]:
    namespaces = [one for one in spec["linux"]["namespaces"] if one["type"] != "pid"]
    return {**spec, "linux": {**spec["linux"], "namespaces": namespaces}}


@pytest.mark.parametrize("who", ["owner", "looks on"])
@pytest.mark.parametrize("already", [False, True])
async def test_without_a_pid_namespace(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, who: str, already: bool
) -> None:
    """Without a pid namespace, `stop` ends the other processes too: once these ran on until the
    delete."""
    script = (  # handler first: once the children are there, the program has it
        "trap 'exit 3' TERM USR1; setsid sleep 60 & setsid sleep 60 & while :; do sleep 0.05; done"
    )
    made = bundle("sh", "-c", script)
    config = Path(made.path, "config.json")
    config.write_text(json.dumps(_without_pids(json.loads(config.read_text()))))
    async with supervisor(root) as one, supervisor(root) as two:
        async with await one.create("a", Bundle.load(made.path)) as box:
            await box.start()
            await until(lambda: len(box.init._task.group.pids()) >= 3, "it runs")
            await two.adopt()
            asking = box if who == "owner" else two["a"]
            if already:
                box.send_signal(signal.SIGUSR1)
                await asking.wait()
            stopped = await asking.stop(grace=20)
            assert stopped.status.code == 3 and not stopped.escalated
            assert box.init._task.group.pids() == set()


@pytest.mark.runtimes("runc", "crun")
async def test_who_looks_on_just_after_the_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker's stop just after the start is heard by the program: the runtime's program,
    perhaps still there, handles and drops every signal."""
    async with supervisor(root) as one, supervisor(root) as two, supervisor(root) as three:
        box = await one.create("a", bundle("sleep", "60"))
        await box.start()
        await two.adopt()
        assert two["a"].init._task.gate.waits()
        started = root / "a/init/started"
        os.utime(started, (0, 0))
        await three.adopt()
        assert not three["a"].init._task.gate.waits()
        await box.delete(force=True)


@pytest.mark.runtimes("fake")
async def test_stop_of_one_that_has_just_gone(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A stop of a container that has just ended, unnoticed so far, finds nothing to ask, and that
    is no error."""
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            pid = pid_in(root / "a/init")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: state_of(pid) == "", "its reaping")  # no other task runs meanwhile
            assert (await a.stop()).status.cause is Cause.SIGNALLED


QUICK = 10.0
"""A timeout far from both extremes: what takes no time, and a deadline that must not be waited
for."""


@pytest.mark.runtimes("fake")
async def test_cancelled_stop_on_a_full_disk(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled stop on a full disk, where the end of the stop can't be recorded, is cancelled
    and raises nothing else."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.stop, 60)
                await until(lambda: a._core.record.intent is not None, "it is being stopped")
                with monkeypatch.context() as patch:
                    patch.setattr("supervisor.container._core.write_whole", full)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def in_vain(a: Container) -> None:
    """Stop the container by a signal that does nothing."""
    await a.stop(60, ask_with=signal.SIGCONT)


@pytest.mark.runtimes("fake")
async def test_one_of_two_stops_is_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """If one of two stops is cancelled, the other goes on, and the next open finishes that one if
    we die now."""

    def intent() -> Intent | None:
        return load(ContainerRecord, str(root / "a/state.json")).intent

    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_vain, a)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.1):
                await in_vain(a)
            assert intent() is Intent.STOP
            nursery.cancel_scope.cancel()
        assert intent() is None


@pytest.mark.runtimes("fake")
async def test_a_stop_is_cancelled_while_it_is_deleted(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A stop that is cancelled during a delete leaves the delete on record."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_vain, a)
                await until(lambda: a._core.stops, "it is being stopped")
                a._core.intend(Intent.DELETE)
                scope.cancel()
        assert scope.cancelled_caught and a._core.record.intent is Intent.DELETE


@pytest.mark.runtimes("fake")
async def test_stop_of_one_that_has_ended_by_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A container that ended before the stop isn't reported as killed, though the supervisor hasn't
    noticed the end yet."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        assert a.pid is not None
        a.terminate()
        with trio.fail_after(QUICK):
            while state_of(a.pid):  # until it was reaped; no task runs meanwhile, so none sees it
                time.sleep(0.001)  # noqa: ASYNC251
            stopped = await a.stop()
        assert (stopped.status.signal, stopped.escalated) == (signal.SIGTERM, False)


@pytest.mark.runtimes("fake")
async def test_stop_escalates_just_when_it_ends_by_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A SIGKILL that finds a zombie has done nothing, and the stop didn't escalate."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            assert (
                a.init._task.handles.process is not None and a.init._task.handles.shim is not None
            )
            a.init._task.handles.shim._process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            await until(lambda: state_of(a.init._task.handles.shim.pid) == "T", "it reaps nobody")  # type: ignore
            a.init._task.handles.process.send_signal(signal.SIGTERM)
            await until(lambda: state_of(a.pid or 0) == "Z", "its end")
            with hurried(a, kill=20):
                async with trio.open_nursery() as nursery:

                    async def stop() -> None:
                        stopped = await a.stop(0)
                        assert (stopped.status.signal, stopped.escalated) == (15, False)

                    nursery.start_soon(stop)
                    await trio.testing.wait_all_tasks_blocked()
                    a.init._task.handles.shim._process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
