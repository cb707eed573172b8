"""Hooks that hang: a runtime waits for them, and the operation is done all the same."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path

import pytest
import trio

from supervisor import Bundle, CreateTimeout, Deadlines, State
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import known, until
from tests.support.runtimes import Choice, needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

BRIEF = Deadlines(call=0.5, start=0.5, cleanup=30)


def with_scripts(bundle: Bundle, when: str, *scripts: str) -> Bundle:
    """Return the bundle with shell scripts as hooks."""
    config = Path(bundle.path) / "config.json"
    hooks = [{"path": "/bin/sh", "args": ["sh", "-c", script]} for script in scripts]
    config.write_text(json.dumps({**bundle.spec, "hooks": {when: hooks}}))
    return Bundle.load(bundle.path)


SECONDS = f"54321.{os.getpid()}"  # other processes that run these tests have their own


def sleepers(word: str) -> list[int]:
    """Return the processes that have a word as an argument."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


HANGING = [
    (f"sleep {SECONDS}",),
    (f"sleep {SECONDS} & sleep {SECONDS}",),
    (f"setsid sleep {SECONDS}; true",),
    (f"trap '' TERM; sleep {SECONDS}; sleep {SECONDS}", f"sleep {SECONDS}", f"sleep {SECONDS}"),
]


@pytest.mark.parametrize("scripts", HANGING)
async def test_poststop(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    nothing_left: NothingLeft,
    scripts: tuple[str, ...],
) -> None:
    """Hanging poststop hooks are killed at the call's deadline, with a warning, and the container
    is gone.

    Once such a container of crun's could never be deleted, and each try left more hooks running.
    """
    async with supervisor(root, deadlines=BRIEF) as sup:
        box = await sup.create("a", with_scripts(bundle("true"), "poststop", *scripts))
        await box.start()
        await box.wait()
        with caplog.at_level(logging.WARNING, logger="supervisor"):
            await box.delete()
        assert "delete took longer than 0.5 seconds: its hooks were killed" in caplog.text
        assert (box.state, dict(sup.broken)) == (State.DELETED, {})
        assert sleepers(SECONDS) == []
        await nothing_left()
        async with await sup.create("a", bundle("true")):  # the id is free
            pass


@pytest.mark.parametrize("cancelled", [False, True])
async def test_poststart(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    nothing_left: NothingLeft,
    cancelled: bool,
) -> None:
    """A create or start that hangs in poststart hooks, and is cancelled or too late, leaves none of
    their processes.

    runc runs these hooks in create, which has failed then; crun in start, when the container runs.
    """
    seconds = 60.0 if cancelled else 1.0
    hanging = with_scripts(bundle("sleep", "60"), "poststart", *HANGING[1])
    async with supervisor(root, deadlines=Deadlines(create=seconds, start=seconds)) as sup:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if cancelled:
                    nursery.start_soon(_cancel_when_they_run, scope)
                with contextlib.suppress(CreateTimeout):
                    box = await sup.create("a", hanging)
                    await box.start()
                nursery.cancel_scope.cancel()
        assert sleepers(SECONDS) == []
        if "a" in sup:
            await sup["a"].delete(force=True)
        await nothing_left()


async def _cancel_when_they_run(scope: trio.CancelScope) -> None:
    await until(lambda: len(sleepers(SECONDS)) >= 2, "its hooks run")
    scope.cancel()


@pytest.mark.runtimes("fake")
async def test_a_runtime_that_cannot_go_on(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    nothing_left: NothingLeft,
) -> None:
    """A runtime that hangs on, with hooks to run, isn't called again: we remove its state."""
    runtime = choice.runtime("hang-delete")
    async with supervisor(root, runtime=runtime, deadlines=BRIEF) as sup:
        box = await sup.create("a", with_scripts(bundle("sleep", "60"), "poststop", "true"))
        await box.start()
        with caplog.at_level(logging.WARNING, logger="supervisor"):
            await box.delete(force=True)
        assert "the supervisor removed the runtime's files instead" in caplog.text
        assert (box.state, known(root / ".runtime")) == (State.DELETED, [])
        await nothing_left()
