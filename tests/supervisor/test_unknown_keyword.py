"""A keyword argument that a function doesn't have is refused by name, and nothing is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor import Bundle, ContainerPool, open_supervisor, run_container
from supervisor.testing import SupervisorThread
from tests.conftest import MakeBundle, OpenSupervisor

UNKNOWN: Any = {"colour": "red"}


def refused() -> Any:
    return pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'")


def test_of_bundles(tmp_path: Path) -> None:
    """Functions that make a bundle refuse an unknown keyword, and make no bundle."""
    place = tmp_path / "bundle"
    with refused():
        Bundle.from_rootfs("/", ["true"], path=place, **UNKNOWN)
    with refused():
        Bundle.from_host(["true"], path=place, **UNKNOWN)
    assert not place.exists()


def test_of_supervisors(tmp_path: Path) -> None:
    """The call itself refuses an unknown keyword, before the block, and makes no root."""
    with refused():
        open_supervisor(tmp_path / "root", **UNKNOWN)
    with refused():
        SupervisorThread(root=tmp_path / "root", **UNKNOWN)
    assert not (tmp_path / "root").exists()


async def test_of_containers(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Create and exec refuse an unknown keyword, and make no container and no exec."""
    made = bundle("sleep", "600")
    async with supervisor() as sup:
        with refused():
            await sup.create("a", made, **UNKNOWN)
        with refused():
            await run_container(made, supervisor=sup, **UNKNOWN)
        assert not sup
        async with await sup.create("a", made) as box:
            await box.start()
            with refused():
                await box.exec(["true"], **UNKNOWN)
            with refused():
                await box.run(["true"], **UNKNOWN)
            assert list(box.processes) == ["init"]


async def test_of_pools(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A pool refuses an unknown keyword, and takes no container."""
    async with supervisor() as sup:
        with refused():
            ContainerPool(bundle("true"), supervisor=sup, **UNKNOWN)
        async with ContainerPool(bundle("true"), size=1, supervisor=sup) as pool:
            await pool.wait_full()
            with refused():
                async with pool.take(**UNKNOWN):
                    pass
            with refused():
                await pool.run(**UNKNOWN)
            assert pool.statistics().created == 1
