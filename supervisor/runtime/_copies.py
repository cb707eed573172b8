"""runc's copies of its own program, which a killed runc may leave mounted.

runc mounts its program on a temporary file in the container's state, opens that, and detaches the
mount again (``try_bindfd`` in ``cloned_binary.c``). Killed in between, it leaves the mount: runc
could then not remove the state, and the id would stay taken.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Final

from ..system import detach_mount, distrust

COPY: Final = r"runc\.[0-9A-Za-z]{6}"
"""A regular expression for the name of such a file (mkostemp(3))."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def detach_copies(place: str) -> None:
    """Detach the copies that are mounted in a container's state, the directory ``place``.

    A directory that isn't ours alone is left as it is.
    """
    with contextlib.suppress(OSError):
        directory = os.open(place, _DIRECTORY)
        try:
            if distrust(os.fstat(directory)) is None:
                for name in filter(re.compile(COPY).fullmatch, os.listdir(directory)):
                    _detach(directory, name)
        finally:
            os.close(directory)


def _detach(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):  # as a rule nothing is mounted there
        detach_mount(directory, name)
