"""A process with few descriptors left."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def only(free: int) -> Iterator[None]:
    """Leave us ``free`` descriptors, and no more; gaps between the open ones are filled.

    The caches of our modules are emptied too: the first call of a program is the worst case.
    """
    forget()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd") if _is_open(int(name)))
    fillers = []
    while (filler := os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)) < highest:
        fillers.append(filler)
    os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


def forget() -> None:
    """Empty the caches of all of our modules."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "supervisor":
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if clear is not None:
                    clear()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
