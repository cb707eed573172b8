"""Arguments and variables as long as the kernel accepts work; longer ones are refused before the
launch."""

from __future__ import annotations

import os
from typing import Any

import pytest

from supervisor import Bundle, ContainerPool, InvalidValue, Supervisor, run_container
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = pytest.mark.rootless

LONGEST = 32 * os.sysconf("SC_PAGE_SIZE") - 1  # MAX_ARG_STRLEN, without the NUL
STACK = 8 << 20

BAD: list[tuple[dict[str, Any], str]] = [
    ({"args": ["echo", "x" * (LONGEST + 1)]}, r"args\[1\] is"),
    ({"args": ["echo", "ä" * (LONGEST // 2 + 1)]}, r"args\[1\] is"),
    ({"env": {"A": "x" * (LONGEST - 1)}}, r"env\['A'\] is"),
    ({"args": ["true", *["x" * 100_000] * 21]}, "args and env are"),
    ({"args": ["true", *[""] * 240_000]}, "args and env are"),
    ({"env": {f"A{n}": "x" * 100_000 for n in range(21)}}, "args and env are"),
]


async def test_refused(supervisor: OpenSupervisor, bundle: MakeBundle, choice: Any) -> None:
    """Create, run_container, exec, run, pools and bundles refuse too long arguments: once that was
    RuntimeFailed, or an exit with status 1."""
    made = bundle("sleep", "600")
    async with supervisor() as sup, await sup.create("a", made) as box:
        await box.start()
        async with ContainerPool(made, size=1, runtime=choice.runtime()) as pool:
            for given, said in BAD:
                with pytest.raises(InvalidValue, match=said):
                    await sup.create("b", made, **given)
                with pytest.raises(InvalidValue, match=said):
                    await run_container(made, supervisor=sup, **given)
                with pytest.raises(InvalidValue, match=said):
                    await box.exec(**{"args": ["true"], **given})
                with pytest.raises(InvalidValue, match=said):
                    await box.run(**{"args": ["true"], **given})
                with pytest.raises(InvalidValue, match=said):
                    await pool.run(**given)
                if "together" not in said:
                    with pytest.raises(InvalidValue, match=said):
                        bundle(*given.get("args", ["true"]), env=given.get("env"))
        assert (list(sup), list(box.processes)) == (["a"], ["init"])


async def test_taken(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The longest ones arrive whole."""
    async with supervisor() as sup:
        await _measure(sup, bundle("sh", "-c", "echo ${#A} ${#1}", "sh", "x" * LONGEST))


async def _measure(sup: Supervisor, made: Bundle) -> None:
    done = await run_container(
        made, supervisor=sup, env={"A": "x" * (LONGEST - 2)}, capture_stdout=True
    )
    assert done.stdout == b"%d %d\n" % (LONGEST - 2, LONGEST)
    async with await sup.create("a", made, args=["sleep", "600"]) as box:
        await box.start()
        many = ["x" * 100_000] * 20
        seen = await box.run(["sh", "-c", "echo $#", "sh", *many], capture_stdout=True)
        assert seen.stdout == b"20\n"


async def test_the_limit_is_the_stacks(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """With a larger stack the kernel takes more, and so do we."""
    many = ["x" * 100_000] * 40
    async with supervisor() as sup:
        made = bundle("sh", "-c", "echo $#", "sh", rlimits={"STACK": 4 * STACK})
        done = await run_container(
            made, supervisor=sup, args=["sh", "-c", "echo $#", "sh", *many], capture_stdout=True
        )
        assert done.stdout == b"40\n"


async def test_no_program_again(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An exec without arguments is refused: once init's program ran a second time."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as box:
        await box.start()
        for nothing in (None, [], [""], {"ls": 1}, "ls", b"ls", {"ls"}, iter(["ls"])):
            with pytest.raises(InvalidValue, match="args"):
                await box.exec(nothing)  # type: ignore[arg-type]
        assert list(box.processes) == ["init"]
        with pytest.raises(InvalidValue, match="must be encoded"):
            await box.run(["cat"], stdin="text")
