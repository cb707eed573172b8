"""Pools for ordinary users."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from supervisor import Bundle, ContainerPool, open_supervisor
from supervisor.bundle import gate_path
from supervisor.native import find_binary
from supervisor.pool import _pool
from tests.support.containers import left
from tests.support.runtimes import Choice, needs_root
from tests.support.users import NOBODYS, as_user

pytestmark = [pytest.mark.runtimes("runc", "crun"), needs_root]


@pytest.mark.parametrize("writable", [None, "overlay"])
def test_anybody(
    choice: Choice, rootfs: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, writable: Any
) -> None:
    """A user without any privilege has fresh containers as root has."""
    home, programs = workdir / "home", workdir / "programs"
    home.mkdir()
    os.chown(home, NOBODYS, NOBODYS)
    programs.mkdir(mode=0o755)  # any user can run these, wherever ours are
    shim = shutil.copy(find_binary("supervisor-shim"), programs)
    gate = shutil.copy(gate_path(), programs)
    monkeypatch.setattr(_pool, "gate_path", lambda: str(gate))
    seen = "/tmp/seen" if writable is None else "/seen"
    script = f"id -u; cat given; test ! -e {seen} && echo x >{seen}"

    async def program() -> None:
        root = home / "root"
        async with open_supervisor(root, runtime=choice.runtime(), shim=str(shim)) as sup:
            bundle = Bundle.from_rootfs(rootfs, ["true"], writable=writable, path=home / "bundle")
            async with ContainerPool(bundle, size=2, supervisor=sup) as pool:
                for number in range(4):
                    done = await pool.run(
                        ["/bin/busybox", "sh", "-c", script],
                        cwd="/dev/shm",
                        files={"/dev/shm/given": f"{number}\n".encode()},
                    )
                    assert done.stdout == f"0\n{number}\n".encode(), done
            assert left(root) == [] and not sup.broken

    as_user(NOBODYS, NOBODYS, program)
