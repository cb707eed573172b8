"""The programs of a container, called as Trio calls those of the host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from supervisor import Completed


@attrs.frozen
class Programs:
    """One kind of process of a container, where Trio has processes of the host.

    Attributes:
        open: as `trio.lowlevel.open_process`; ends the process when the block is left.
        run: as `trio.run_process`; the started value is the process.
    """

    open: Callable[..., Any]
    run: Callable[..., Awaitable[Completed]]
