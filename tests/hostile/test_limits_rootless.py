"""Limits of an ordinary user's containers: none that the supervising program couldn't set for
itself."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from supervisor import Bundle, BundleInvalid, InvalidValue, Supervisor, run_container
from tests.support.homes import Home
from tests.support.runtimes import needs_root

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]

TELL = ["sh", "-c", "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"]


def test_what_the_program_has_lowered(home: Home) -> None:
    """A limit that the program lowers, before a bundle is made or afterwards, holds for init and
    exec, and both work."""

    async def program(sup: Supervisor) -> None:
        Path("/proc/self/oom_score_adj").write_text("300")
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 700))
        with Bundle.from_host(TELL) as telling, Bundle.from_host(["sleep", "60"]) as idle:
            done = await run_container(telling, supervisor=sup, capture_stdout=True)
            assert done.stdout == b"700\n700\n300\n"
            resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
            done = await run_container(telling, supervisor=sup, capture_stdout=True)
            assert done.stdout == b"500\n500\n300\n"
            async with await sup.create("a", idle) as box:
                await box.start()
                assert (await box.run(TELL, capture_stdout=True)).stdout == b"500\n500\n300\n"
                resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
                assert (await box.run(TELL, capture_stdout=True)).stdout == b"400\n400\n300\n"

    home.run(program)


def test_what_it_may_not_ask_for(home: Home) -> None:
    """A limit above the program's own is refused before anything is touched; a lower one is
    accepted."""

    async def program(sup: Supervisor) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 700))
        with pytest.raises(InvalidValue, match=r"the hard RLIMIT_NOFILE can't be 701: .* has 700"):
            Bundle.from_host(TELL, rlimits={"nofile": (100, 701)})
        with Bundle.from_host(TELL, rlimits={"nofile": (100, 700)}) as bundle:
            done = await run_container(bundle, supervisor=sup, capture_stdout=True)
            assert done.stdout.startswith(b"100\n700\n")
            with pytest.raises(InvalidValue, match="RLIMIT_NOFILE"):
                await sup.create("a", bundle, rlimits={"nofile": 701})
            assert list(sup) == []

    home.run(program)


def test_what_a_bundle_may_not_ask_for(home: Home) -> None:
    """The error for a loaded bundle's limit names that limit and ours: once it was *operation not
    permitted* of a runtime."""

    async def program(sup: Supervisor) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, 700))
        with Bundle.from_host(["sleep", "60"]) as bundle:
            path = Path(bundle.path, "config.json")
            limit = {"type": "RLIMIT_NOFILE", "soft": 65536, "hard": 1 << 20}
            process = {**bundle.spec["process"], "rlimits": [limit]}
            path.write_text(json.dumps({**bundle.spec, "process": process}))
            with pytest.raises(
                BundleInvalid, match=r"NOFILE can't be 1048576: .* has 700"
            ) as caught:
                await sup.create("a", bundle.path)
            assert (caught.value.where, list(sup)) == ("process.rlimits", [])
            async with await sup.create("a", bundle.path, rlimits={"nofile": (500, 650)}) as box:
                await box.start()
                resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
                with pytest.raises(InvalidValue, match=r"NOFILE can't be 650: .* has 600"):
                    await box.exec(["true"])

    home.run(program)
