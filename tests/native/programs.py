"""The programs under test: those that ship, and the same ones under the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

import supervisor.native
from supervisor.native import find_binary

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
PARTS = {
    "shim": (
        "shim",
        "words",
        "report",
        "files",
        "cgroup",
        "fresh",
        "idmap",
        "layer",
        "index",
        "log",
        "told",
        "copy",
        "terminal",
    ),
    "keeper": ("keeper", "cgroup", "groups", "owned", "tree"),
    "tether": ("tether",),
    "hook": ("hook",),
}
SHORT_PATIENCE = ["-DPATIENCE_MS=300"]


@attrs.frozen
class Programs:
    """A build of the programs.

    Attributes:
        shim: the path of the shim.
        keeper: the path of the keeper.
        tether: the path of the tether.
        hook: the path of what runs hooks.
        logs: where the sanitizers write to; None for the programs that ship.
    """

    shim: str
    keeper: str
    tether: str
    hook: str
    logs: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment that they are run in."""
        if self.logs is None:
            return dict(os.environ)
        options = f"log_path={self.logs}/log:exitcode=99"
        return {
            **os.environ,
            "ASAN_OPTIONS": f"{options}:detect_leaks=0:disable_coredump=0",
            "UBSAN_OPTIONS": f"{options}:print_stacktrace=1",
        }

    def complaints(self) -> list[str]:
        """Return the sanitizers' output so far, and delete the files."""
        said = []
        for path in [] if self.logs is None else self.logs.iterdir():
            said.append(path.read_text(errors="replace"))
            path.unlink()
        return said


def shipped() -> Programs:
    """Return the programs that were built into the package."""
    return Programs(*(find_binary(f"supervisor-{name}") for name in PARTS))


def sanitized(directory: Path) -> Programs:
    """Build the programs with the address and undefined-behaviour sanitizers.

    LeakSanitizer stays off: the sanitizer stops the program with ptrace, and the programs allocate
    nothing.
    """
    sources = _sources()
    compiler = shutil.which("gcc") or shutil.which("clang")
    if sources is None or compiler is None:
        pytest.skip("the sanitized build needs the sources, and gcc or clang")
    flags = (sources / "compile_flags.txt").read_text().split()
    for name, modules in PARTS.items():
        output = directory / f"supervisor-{name}"
        parts = [str(sources / f"{module}.c") for module in modules]
        command = [compiler, *flags, *SANITIZE, *SHORT_PATIENCE, "-o", str(output), *parts]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0 and "cannot find" in built.stderr:
            pytest.skip(f"{compiler} has no sanitizers: {built.stderr.strip().splitlines()[-1]}")
        assert built.returncode == 0, built.stderr
    logs = directory / "logs"
    logs.mkdir()
    return Programs(*(str(directory / f"supervisor-{name}") for name in PARTS), logs=logs)


def _sources() -> Path | None:
    for entry in supervisor.native.__path__:
        if (Path(entry) / "shim.c").exists():
            return Path(entry)
    return None
