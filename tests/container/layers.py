"""What the tests of layers look at, as root and as an ordinary user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from supervisor import Container


def files(image: Path) -> dict[str, object]:
    """Return everything in a root filesystem, with the facts that show whether a file was
    changed."""
    return {
        os.path.relpath(path, image): (status.st_ino, status.st_mode, status.st_ctime_ns)
        for directory, folders, names in os.walk(image)
        for path in (directory, *(os.path.join(directory, name) for name in (*folders, *names)))
        for status in [os.lstat(path)]
    }


def no_mounts(workdir: Path) -> bool:
    """Whether nothing is mounted below a directory, in our mount namespace."""
    return str(workdir) not in Path("/proc/self/mountinfo").read_text()


async def output(box: Container, script: str) -> str:
    """Run a script in a container, and return the script's output."""
    done = await box.run(["sh", "-c", script], capture_stdout=True)
    assert done.stdout is not None
    return done.stdout.decode()


async def until_seen(receive: Callable[[], object], wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        chunk = await receive()  # type: ignore[misc]
        assert chunk, seen
        seen += chunk
