"""What a runtime prints before its log exists, or another program prints in the runtime's place, is
quoted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from supervisor import Bundle, RuntimeFailed, Supervisor, SupervisorError, run_container
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.runtimes import Choice, needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

LONG = "yes 'the licence is not here' | head -n 1000000 >&2"


@pytest.fixture
def wrapped(choice: Choice, workdir: Path) -> Callable[[str, str], str]:
    """Make a program in the runtime's place, which runs a script first in calls of one verb."""

    def make(verb: str, script: str) -> str:
        path = workdir / f"{choice.name}-wrapper"
        path.write_text(
            f'#!/bin/sh\nfor word; do [ "$word" = {verb} ] && {{ {script}; exit 3; }}; done\n'
            f'exec {choice.runtime().path} "$@"\n'
        )
        path.chmod(0o755)
        return str(path)

    return make


async def test_an_unknown_option(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    nothing_left: NothingLeft,
) -> None:
    """An unknown option's message is quoted, and the id is free: once it stayed taken."""
    wrong = attrs.evolve(choice.runtime(), args=["--foo-bar"])
    async with supervisor(root, runtime=wrong) as sup:
        for _ in range(2):
            with pytest.raises(RuntimeFailed, match="foo-bar") as caught:
                await sup.create("a", bundle("true"))
            assert "foo-bar" in caught.value.reason and caught.value.returncode
            assert (list(sup), dict(sup.broken)) == ([], {})
        await nothing_left()
    async with supervisor(root) as sup, await sup.create("a", bundle("true")):
        pass


@pytest.mark.parametrize("script", ["echo the licence is not here >&2", LONG])
@pytest.mark.parametrize("verb", ["create", "start", "exec"])
async def test_a_program_in_its_place(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    wrapped: Callable[[str, str], str],
    verb: str,
    script: str,
    nothing_left: NothingLeft,
) -> None:
    """With default streams each operation quotes a program in the runtime's place: once the runtime
    *said nothing*, because its output wasn't read."""
    async with supervisor(root, runtime=wrapped(verb, script)) as sup:
        with pytest.raises(RuntimeFailed, match="status 3: the licence is not here") as caught:
            await _all(sup, bundle("sleep", "60"))
        assert caught.value.reason.startswith("the licence") and len(str(caught.value)) < 1000
        if "a" in sup:
            sizes = [path.stat().st_size for path in (root / "a/init").iterdir()]
            assert max(sizes) <= 256 * 1024
            await sup["a"].delete(force=True)
        assert dict(sup.broken) == {}
        await nothing_left()


async def _all(sup: Supervisor, bundle: Bundle) -> None:
    box = await sup.create("a", bundle)
    await box.start()
    await box.exec(["true"])


async def test_a_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    wrapped: Callable[[str, str], str],
) -> None:
    """A failed delete quotes the reason, in the error and in `broken`."""
    there = workdir / "licence"
    runtime = wrapped(f"delete ] && [ ! -e {there}", "echo the licence is not here >&2")
    async with supervisor(root, runtime=runtime) as sup:
        box = await sup.create("a", bundle("true"))
        with pytest.raises(SupervisorError, match="status 3: the licence is not here"):
            await box.delete(force=True)
        assert "the licence is not here" in sup.broken["a"].reason
        there.touch()
        await box.delete(force=True)


async def test_a_run(
    supervisor: OpenSupervisor, bundle: MakeBundle, wrapped: Callable[[str, str], str]
) -> None:
    """The same holds in a container for one run."""
    runtime = wrapped("create", "echo the licence is not here >&2")
    async with supervisor(runtime=runtime) as sup:
        with pytest.raises(RuntimeFailed, match="status 3: the licence is not here"):
            await run_container(bundle("true"), supervisor=sup)
