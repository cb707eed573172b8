"""Programs that are interrupted: each opens, makes and runs until a KeyboardInterrupt ends the
program.

The program prints ``go``, and is then interrupted at a random moment, by SIGINT. With ``rounds``
the program interrupts itself so often, one run of Trio after the other, and prints what is left in
its own process. With ``BEGIN:END:STRIDE`` for ``rounds`` it does so as the n-th line of our package
is run in the main thread, for each n in that range, until a round finishes its work before the
interrupt.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import trio

import supervisor
from supervisor import PIPE, Bundle, ContainerPool, open_supervisor, run_container
from tests.support.runtimes import choose

PACKAGE = os.path.dirname(supervisor.__file__)

Work = Callable[[Callable[..., Any], Callable[..., Bundle]], Awaitable[None]]


async def _open(opened: Callable[..., Any], bundle: Callable[..., Bundle]) -> None:
    async with opened():
        pass


async def _create(opened: Callable[..., Any], bundle: Callable[..., Bundle]) -> None:
    async with opened() as sup:
        for number in range(3):
            async with await sup.create(f"a{number}", bundle("sleep", "60"), stdout=PIPE) as box:
                await box.start()
                await box.run(["echo", "x"], capture_stdout=True)
                await box.stop(grace=0.01)


async def _run(opened: Callable[..., Any], bundle: Callable[..., Bundle]) -> None:
    async with opened() as sup:
        for _ in range(3):
            await run_container(bundle("echo", "x"), supervisor=sup, capture_stdout=True)


async def _pool(opened: Callable[..., Any], bundle: Callable[..., Bundle]) -> None:
    async with opened() as sup, ContainerPool(bundle("cat"), size=2, supervisor=sup) as pool:
        for _ in range(3):
            async with pool.take(stdin=b"x"):
                pass
            await pool.run(["echo", "x"])


KINDS: dict[str, Work] = {"open": _open, "create": _create, "run": _run, "pool": _pool}


def _once(told: dict[str, Any], begun: Callable[[], None]) -> None:
    chosen = choose(told["runtime"], rootless=False).runtime()

    def opened() -> Any:
        return open_supervisor(runtime=chosen, cgroup_parent=told["cgroup_parent"])

    def bundle(*args: str) -> Bundle:
        return Bundle.from_rootfs(told["rootfs"], list(args))

    async def main() -> None:
        begun()
        while True:
            await KINDS[told["kind"]](opened, bundle)

    trio.run(main)


def _told(error: BaseException) -> str:
    return "interrupted" if type(error) is KeyboardInterrupt else f"other: {error!r}"


def _descriptors() -> list[tuple[str, str]]:
    gc.collect()  # a traceback may hold a temporary bundle, which has a descriptor in /tmp
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return found


def _rounds(wanted: str) -> Iterator[tuple[Callable[[], None], Callable[[], object]]]:
    """Yield what begins each round and what ends the round."""
    if ":" not in wanted:
        rng = random.Random(1)
        for _ in range(int(wanted)):
            seconds = rng.uniform(0.0, 0.4)
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
            yield timer.start, timer.join
        return
    for number in range(*map(int, wanted.split(":"))):
        yield functools.partial(sys.settrace, _striking(number)), lambda: sys.settrace(None)


def _striking(number: int) -> Callable[..., Any]:
    """Return a trace function that raises SIGINT as the n-th line of our package is run."""
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                # The handler looks at the frames, and shall see this line's, not ours.
                signal.raise_signal(signal.SIGINT)
        return trace

    return trace


def main(told: dict[str, Any]) -> None:
    """Be interrupted once, by the parent, or many times, by ourselves."""
    if "rounds" not in told:
        try:
            _once(told, begun=lambda: print("go", flush=True))
        except BaseException as error:
            print(_told(error), flush=True)
        return
    ends = set()
    before = _descriptors()
    for begun, over in _rounds(told["rounds"]):
        try:
            _once(told, begun)
        except BaseException as error:
            ends.add(_told(error))
        over()
    kept = sorted(set(_descriptors()) - set(before))
    children = os.popen(f"ps -o stat=,comm= --ppid {os.getpid()}").read()  # with ps and a shell
    zombies = [line for line in children.splitlines() if line.startswith("Z")]
    print(sorted(ends), "zombies", len(zombies), "descriptors", kept, flush=True)
