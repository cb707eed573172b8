"""How much of our code one lifecycle runs: the code that a reader has to follow.

Usage: python benchmarks/calls.py [--rounds N] [--runtime NAME]... [--json FILE]

For each step of one container's life, between the step's begin and return, this counts: calls of
the library's functions on the loop's thread, by any task; how many of these calls check values of
records; how many different functions, modules and rooms (packages, and modules at the top); how
often a call is in another room than the call before, and how often in a room that was left before;
how deep the calls nest. Code that attrs generates isn't counted. Counts hardly vary, unlike times.
The median is of a few lives, after a first life that isn't counted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dis import opmap
from types import CodeType, FrameType

import trio
from _figures import OURS, Row, Summary
from _stage import Stage, perform

import supervisor
from supervisor import Bundle, Runtime, Supervisor

PACKAGE = os.path.dirname(supervisor.__file__) + os.sep
CHECKS = {"_fields.py", "_text.py"}
STEPS = ("create", "start", "wait", "delete")
_RESUME = opmap["RESUME"]


class Path:
    """The way through the code: our calls, in their order."""

    def __init__(self) -> None:
        self._calls: list[CodeType] = []
        self._deepest = 0

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the calls during the block."""
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not is_ours(code) or resumes(frame):
            return
        self._calls.append(code)
        self._deepest = max(self._deepest, depth(frame))

    def counts(self) -> dict[str, int]:
        """Return the counts."""
        files = [code.co_filename for code in self._calls]
        rooms = [room(file) for file in files]
        moves = [after for before, after in itertools.pairwise(rooms) if after != before]
        return {
            OURS: len(files),
            "checks": sum(os.path.basename(file) in CHECKS for file in files),
            "functions": len(set(self._calls)),
            "modules": len(set(files)),
            "rooms": len(set(rooms)),
            "moves": len(moves),
            "back": len(moves) - max(0, len(set(rooms)) - 1),
            "depth": self._deepest,
        }

    def most(self) -> list[tuple[str, int]]:
        """Return the functions and the number of calls of each, the most called first."""
        names = Counter(
            f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}" for code in self._calls
        )
        return names.most_common()


def room(file: str) -> str:
    """Return the package or module at the top of the library that a file belongs to."""
    return file.removeprefix(PACKAGE).partition(os.sep)[0]


def is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGE)


def resumes(frame: FrameType) -> bool:
    """Whether the call continues a coroutine or generator that began earlier."""
    at = frame.f_lasti
    code = frame.f_code.co_code
    return at >= 0 and code[at] == _RESUME and code[at + 1] != 0


def depth(frame: FrameType | None) -> int:
    """Return how many frames of ours are on the stack."""
    count = 0
    while frame is not None:
        count += is_ours(frame.f_code)
        frame = frame.f_back
    return count


async def life(sup: Supervisor, id: str, bundle: Bundle) -> dict[str, Path]:
    """Go through one life; return the way through each step."""
    paths = {step: Path() for step in STEPS}
    with paths["create"].recorded():
        box = await sup.create(id, bundle)
    with paths["start"].recorded():
        await box.start()
    with paths["wait"].recorded():
        await box.wait()
    await trio.sleep(0.05)  # meanwhile the task of the init's process ends
    with paths["delete"].recorded():
        await box.delete()
    return paths


async def one_runtime(stage: Stage, name: str, runtime: Runtime) -> list[Row]:
    """Count with one runtime."""
    async with stage.open(runtime, f"root-{name}") as sup:
        bundle = stage.bundle("true")
        rounds = stage.rounds(5, 3)
        lives = [await life(sup, f"calls-{number}", bundle) for number in range(rounds + 1)]
    return [row(name, step, [one[step].counts() for one in lives[1:]]) for step in STEPS]


def row(name: str, step: str, counts: list[dict[str, int]]) -> Row:
    """Return the row of one step."""
    return Row(
        benchmark=name,
        case=step,
        unit="calls",
        figures={key: Summary.of([float(one[key]) for one in counts]) for key in counts[0]},
    )


async def measure(stage: Stage) -> list[Row]:
    """Count with each runtime."""
    runtimes = stage.all_runtimes().items()
    return [row for name, runtime in runtimes for row in await one_runtime(stage, name, runtime)]


if __name__ == "__main__":
    perform(measure)
