"""A pool of the test's own, with the runtime that the pool uses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import ContainerPool
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import SECONDS, OpenPool


@pytest.fixture
def pool(supervisor: OpenSupervisor, bundle: MakeBundle) -> OpenPool:
    """Open a pool of busybox containers: ``pool(size=2)``.

    ``bundle`` and ``sup`` are for the arguments of the bundle and of the supervisor; all others are
    the pool's. Whatever a test does with the pool is limited to a minute.
    """

    @contextlib.asynccontextmanager
    async def open_pool(
        *args: str,
        spec: dict[str, Any] | None = None,
        sup: dict[str, Any] | None = None,
        root: Path | None = None,
        **options: Any,
    ) -> AsyncIterator[ContainerPool]:
        made = bundle(*(args or ("true",)), **(spec or {}))
        with trio.fail_after(SECONDS):
            async with supervisor(root, **(sup or {})) as owner:
                async with ContainerPool(made, supervisor=owner, **options) as opened:
                    yield opened

    return open_pool
