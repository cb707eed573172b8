"""What the programs do that the reliability tests kill."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from supervisor import (
    PIPE,
    Bundle,
    Container,
    Deadlines,
    Runtime,
    Supervisor,
    SupervisorError,
    open_supervisor,
    run_container,
)

Told = dict[str, Any]


class Diary:
    """The diary that a program writes."""

    def __init__(self, told: Told) -> None:
        self._file = open(told["diary"], "a", buffering=1)  # noqa: SIM115 - until we die

    def note(self, what: str, **details: Any) -> None:
        """Write an entry."""
        entry = {"what": what, "ns": time.monotonic_ns(), **details}
        self._file.write(json.dumps(entry) + "\n")


def _runtime(told: Told) -> Runtime:
    path, *args = told["runtime"]
    return Runtime(path=path, args=tuple(args))


# ---- the life of one container, for the matrix --------------------------------------------


async def life(told: Told) -> None:
    """Create container ``a``, start it, wait for its end, delete it; or only the first steps of
    these.

    Each step is noted when it begins and when it has ended: ``create``, ``created``, ... A step
    that fails is noted with the error, and repeated if the test asks for that.
    """
    diary = Diary(told)
    async with open_supervisor(
        told["root"],
        runtime=_runtime(told),
        cgroup_parent=told["cgroup_parent"],
        deadlines=Deadlines(**told["deadlines"]),
    ) as sup:

        async def create() -> None:
            bundle = Bundle.load(told["bundle"])
            await sup.create("a", bundle, stdin=PIPE, stdout=PIPE)

        async def wait() -> None:
            status = await sup["a"].wait()
            diary.note("status", text=str(status), signal=status.signal, code=status.code)

        async def start() -> None:
            await sup["a"].start()

        steps: dict[str, Callable[[], Awaitable[object]]] = {
            "create": create,
            "start": start,
            "wait": wait,
            "delete": lambda: sup["a"].delete(force=True),
        }
        for name in told["steps"]:
            diary.note(f"{name} begins")
            try:
                await steps[name]()
            except SupervisorError as error:
                diary.note(name, error=type(error).__name__, message=str(error))
                break
            diary.note(name, error=None, state=sup["a"].state.name if "a" in sup else None)
    diary.note("closed")


# ---- operations on a leash ------------------------------------------------------------------


class Countdown:
    """Kills us before the n-th thing that Python does to files and processes from now on."""

    def __init__(self) -> None:
        self.left = math.inf
        self.count = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _args: tuple[Any, ...]) -> None:
        if event == "open" or event.startswith(("os.", "fcntl.", "tempfile.", "socket.")):
            self.count += 1
            self.left -= 1
            if self.left < 0:
                self.left = math.inf  # killing is such a thing too
                os.kill(os.getpid(), signal.SIGKILL)


async def leashed(told: Told) -> None:
    """Do one operation, whose beginning and end are noted; then wait to be killed.

    ``step``: die before that step of the operation.
    """
    diary = Diary(told)
    countdown = Countdown()
    operation = told["operation"]

    def begin() -> None:
        diary.note("begins")
        countdown.count = 0
        countdown.left = told.get("step", math.inf)

    async def end() -> None:
        countdown.left = math.inf
        diary.note("done", steps=countdown.count)
        await trio.sleep_forever()

    if operation == "run_container" and told["root"] is None:
        begin()
        async with trio.open_nursery() as nursery:
            # The supervisor is ephemeral: only TMPDIR says where the root is.
            await nursery.start(
                lambda task_status: run_container(
                    told["bundle"], runtime=_runtime(told), task_status=task_status
                )
            )
            _fork(told, diary)
            await end()
    async with open_supervisor(
        told["root"],
        runtime=_runtime(told),
        cgroup_parent=told["cgroup_parent"],
        leash=True,
    ) as sup:
        operate = _OPERATIONS[operation]
        box = None
        if operation not in ("create", "run_container"):
            box = await sup.create("a", told["bundle"])
        if operation in ("exec", "run", "delete"):
            assert box is not None
            await box.start()
        _fork(told, diary)
        begin()
        await operate(sup, box, told["bundle"])
        await end()


def _fork(told: Told, diary: Diary) -> None:
    """Fork a child that lives on, if the play asks for that."""
    if told.get("fork"):
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        diary.note("forking")
        child.start()
        diary.note("forked", pid=child.pid)


async def _create(sup: Supervisor, box: Container | None, bundle: str) -> None:
    await sup.create("b", bundle)


async def _start(sup: Supervisor, box: Container | None, bundle: str) -> None:
    assert box is not None
    await box.start()


async def _exec(sup: Supervisor, box: Container | None, bundle: str) -> None:
    assert box is not None
    await box.exec(["sleep", "601"])


async def _run(sup: Supervisor, box: Container | None, bundle: str) -> None:
    assert box is not None
    await box.run(["sh", "-c", "cat; echo done"], stdin=b"in", capture_stdout=True)


async def _delete(sup: Supervisor, box: Container | None, bundle: str) -> None:
    assert box is not None
    await box.delete(force=True)


async def _run_container(sup: Supervisor, box: Container | None, bundle: str) -> None:
    await run_container(
        bundle,
        supervisor=sup,
        args=["sh", "-c", "cat; echo done"],
        stdin=b"in",
        capture_stdout=True,
    )


_OPERATIONS: dict[str, Callable[[Supervisor, Container | None, str], Awaitable[None]]] = {
    "create": _create,
    "start": _start,
    "exec": _exec,
    "run": _run,
    "run_container": _run_container,
    "delete": _delete,
}

OPERATIONS = tuple(_OPERATIONS)
"""Their names."""
