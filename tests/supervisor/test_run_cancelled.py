"""``run_container`` and ``Container.run`` that are cancelled, and ``deliver_cancel``."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from supervisor import PIPE, Bundle, Container, Process, ProcessEnded, run_container
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.cancelling import cancelled_after, for_every_checkpoint
from tests.support.containers import until
from tests.support.processes import status_of
from tests.support.runtimes import Choice

TRAPPED = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"]


STUBBORN = ["sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"]


async def trap_set(process: Process | Container) -> None:
    """Wait until a shell has set its trap for SIGTERM: before, the signal may end the shell."""

    def is_set() -> bool:
        assert process.pid is not None
        told = status_of(process.pid)
        heeded = int(told["SigCgt"], 16) | int(told["SigIgn"], 16)
        return told["Name"] == "sh" and bool(heeded >> (signal.SIGTERM - 1) & 1)

    await until(is_set, "its trap")


async def cancelled_once_it_runs(
    run: Callable[..., Awaitable[object]], *args: Any, **options: Any
) -> None:
    """Run a program that stays, and cancel the run as soon as the program runs."""
    with trio.CancelScope() as scope:
        status = SimpleNamespace(started=lambda _: scope.cancel())
        await run(*args, **options, task_status=status)


async def test_cancelled_inside(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A cancelled exec gets its signal first, and may clean up."""
    script = "trap 'echo bye > /tmp/bye; exit' TERM; while :; do sleep 0.01; done"
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        async with trio.open_nursery() as nursery:
            process: Process = await nursery.start(
                lambda task_status: box.run(["sh", "-c", script], task_status=task_status)
            )
            await trap_set(process)
            nursery.cancel_scope.cancel()
        assert process.status is not None and process.status.code == 0
        assert (await box.run(["cat", "/tmp/bye"], capture_stdout=True)).stdout == b"bye\n"


async def test_cancelled_and_stubborn(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled program that ignores SIGTERM is killed after the grace, with a warning, and
    nothing is left."""
    monkeypatch.setattr("supervisor.running._end.GRACE_SECONDS", 0.3)
    monkeypatch.setattr("supervisor.container._stop.STOP_GRACE_SECONDS", 0.3)
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()

        async def cancelled(inside: bool) -> Any:
            async with trio.open_nursery() as nursery:
                started: Any = await nursery.start(
                    lambda task_status: (
                        box.run(STUBBORN, task_status=task_status)
                        if inside
                        else run_container(
                            bundle("true"), supervisor=sup, args=STUBBORN, task_status=task_status
                        )
                    )
                )
                await trap_set(started)
                nursery.cancel_scope.cancel()
            return started

        for inside in (True, False):
            with pytest.warns(
                RuntimeWarning, match=r"ignored SIGTERM for 0\.3 seconds, and"
            ) as said:
                started = await cancelled(inside)
            assert ("As pid 1" in str(said[0].message)) is not inside
            assert started.status.signal is signal.SIGKILL
        assert list(sup) == ["a"]
        with trio.fail_after(5):
            while len(box.processes) > 1:
                await trio.sleep(0.01)


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.parametrize("init", [False, True])
async def test_a_stop_signal_without_a_name(
    supervisor: OpenSupervisor, choice: Choice, init: bool
) -> None:
    """A stop signal without a Python name, as systemd's RTMIN+3, works in a cancelled run: once a
    ValueError replaced the cancellation."""
    made = Bundle.from_host(
        ["sh", "-c", "trap '' 37; echo; while :; do sleep 0.01; done"],
        init=init,
        stop_signal="RTMIN+3",
        stop_grace=0.3,
    )

    async def cancelled() -> bool:
        async with trio.open_nursery() as nursery:
            box: Container = await nursery.start(
                partial(run_container, supervisor=sup, stdout=PIPE), made
            )
            assert box.stdout is not None
            async with box.stdout:
                assert await box.stdout.receive_some() == b"\n"
            nursery.cancel_scope.cancel()
        return nursery.cancel_scope.cancelled_caught

    async with supervisor() as sup:
        said = r"the program 'sh' .* ignored signal 37 for 0\.3 seconds"
        with pytest.warns(RuntimeWarning, match=said) as warnings:
            assert await cancelled()
        assert ("a bundle with init=True" in str(warnings[0].message)) is not init
        assert not list(sup)


async def test_deliver_cancel(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """``deliver_cancel`` may replace the SIGTERM of a cancelled run."""
    delivered: list[object] = []

    async def deliver(what: Any) -> None:
        delivered.append(what)
        what.kill()

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        await cancelled_once_it_runs(box.run, ["sleep", "60"], deliver_cancel=deliver)
        await cancelled_once_it_runs(
            run_container, bundle("sleep", "60"), supervisor=sup, deliver_cancel=deliver
        )
        assert [type(what) for what in delivered] == [Process, Container]


@pytest.mark.parametrize("inside", [True, False])
async def test_deliver_cancel_ends_with_the_program(
    supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool
) -> None:
    """``deliver_cancel`` is cancelled when the program ends: once the function of Trio's
    documentation slept on and then signalled, and ProcessEnded replaced the cancellation."""
    went: list[str] = []

    async def deliver(what: Any) -> None:
        await trap_set(what)
        went.append("asked")
        what.terminate()
        try:
            await trio.sleep(60)
        finally:
            with pytest.raises(ProcessEnded):
                what.kill()
            what.kill()

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with trio.fail_after(8):
            if inside:
                await cancelled_once_it_runs(box.run, TRAPPED, deliver_cancel=deliver)
            else:
                await cancelled_once_it_runs(
                    run_container, bundle(*TRAPPED), supervisor=sup, deliver_cancel=deliver
                )
    assert went == ["asked"]


@pytest.mark.parametrize("inside", [True, False])
async def test_deliver_cancel_that_does_nothing(
    supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program whose ``deliver_cancel`` does nothing is killed after the grace, with a warning."""
    monkeypatch.setattr("supervisor.running._end.GRACE_SECONDS", 0.2)
    monkeypatch.setattr("supervisor.container._stop.STOP_GRACE_SECONDS", 0.2)

    async def deliver(what: object) -> None:
        await trio.lowlevel.checkpoint()

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        run = partial(box.run, ["sleep", "61"])
        if not inside:
            run = partial(run_container, bundle("sleep", "62"), supervisor=sup)
        with pytest.warns(RuntimeWarning, match=r"ignored deliver_cancel for 0\.2 s"):
            await cancelled_once_it_runs(run, deliver_cancel=deliver)
        assert list(sup) == ["a"]


@pytest.mark.runtimes("fake")
async def test_deliver_cancel_has_the_containers_own_time(
    supervisor: OpenSupervisor, choice: Choice
) -> None:
    """``deliver_cancel`` replaces the signal, and keeps the container's own grace: once that was
    always ten seconds."""
    made = Bundle.from_host(["sleep", "60"], stop_grace=0.2)

    async def deliver(box: Container) -> None:
        await trio.sleep_forever()

    with trio.fail_after(8):
        async with supervisor() as sup:
            with pytest.warns(RuntimeWarning, match=r"ignored deliver_cancel for 0\.2 s"):
                await cancelled_once_it_runs(
                    run_container, made, supervisor=sup, deliver_cancel=deliver
                )


@pytest.mark.parametrize("inside", [True, False])
async def test_deliver_cancel_with_a_nursery(
    supervisor: OpenSupervisor, bundle: MakeBundle, inside: bool
) -> None:
    """ProcessEnded in a group from a nursery in ``deliver_cancel`` is ignored: once it replaced the
    cancellation."""
    went: list[str] = []

    async def insist(what: Any) -> None:
        what.kill()
        with trio.CancelScope(shield=True):
            await what.wait()
        went.append("once more")
        what.kill()

    async def deliver(what: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist, what)
            nursery.start_soon(trio.sleep_forever)

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        if inside:
            await cancelled_once_it_runs(box.run, ["sleep", "61"], deliver_cancel=deliver)
        else:
            await cancelled_once_it_runs(
                run_container, bundle("sleep", "62"), supervisor=sup, deliver_cancel=deliver
            )
    assert went == ["once more"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
async def test_deliver_cancel_that_fails(
    supervisor: OpenSupervisor, bundle: MakeBundle, kind: type[BaseException]
) -> None:
    """The error of a failing ``deliver_cancel`` comes out unchanged, not in a group, and the
    program is ended all the same."""

    async def fail(what: object) -> None:
        raise kind

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        with pytest.raises(kind):
            await cancelled_once_it_runs(box.run, ["sleep", "61"], deliver_cancel=fail)
        with pytest.raises(kind):
            await cancelled_once_it_runs(
                run_container, bundle("sleep", "62"), supervisor=sup, deliver_cancel=fail
            )
        assert list(sup) == ["a"]
        running = await box.run(["busybox", "pidof", "sleep"], capture_stdout=True)
        assert running.stdout == b"1\n"


@pytest.mark.timeout(300)
@pytest.mark.runtimes("crun", "runc", "fake")
async def test_cancelled_anywhere(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Whenever run_container is cancelled, nothing is left."""
    spec = bundle("cat")
    async with supervisor(root) as sup:

        async def attempt(steps: int) -> bool:
            cancelled = await cancelled_after(
                steps,
                lambda: run_container(
                    spec, supervisor=sup, id="a", stdin=b"x" * 100_000, capture_stdout=True
                ),
            )
            assert list(sup) == [] and not sup.broken
            assert [path.name for path in root.iterdir() if path.name != ".runtime"] == []
            return cancelled

        await for_every_checkpoint(attempt)
