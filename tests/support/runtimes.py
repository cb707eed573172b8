"""Which runtimes the tests can use here, and why not the others."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import attrs
import pytest

from supervisor import Runtime
from supervisor.oci._runtime import why_not

FAKE = Path(__file__).with_name("fake_runtime.py")
REAL = ("runc", "crun")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: limits, other users, or the host's pids"
)
"""For tests of what an ordinary user's containers can't have. All others run rootless too."""

RUNSC_ARGS = ("--network=none", "--ignore-cgroups=true", "--platform=ptrace")


@attrs.frozen
class Choice:
    """A runtime for tests.

    Attributes:
        name: runc, crun or fake.
        obstacle: why it can't be used here, or None.
    """

    name: str
    obstacle: str | None

    @property
    def real(self) -> bool:
        """Whether it makes real containers."""
        return self.name != "fake"

    def runtime(self, *faults: str) -> Runtime:
        """Return it, misbehaving in the given ways (the fake one only)."""
        if not self.real:
            return fake(*faults)
        assert not faults
        found = Runtime.find(self.name)
        return attrs.evolve(found, args=RUNSC_ARGS) if self.name == "runsc" else found


def fake(*faults: str) -> Runtime:
    """Return the fake runtime, with faults."""
    words = [word for fault in faults for word in ("--fault", fault)]
    return Runtime(path=sys.executable, args=("-IS", str(FAKE), *words))


def choose(name: str, *, rootless: bool = True) -> Choice:
    """Return the runtime of that name, and whether it can be used here.

    Args:
        name: runc, crun, runsc or fake.
        rootless: whether the tests are known to run as an ordinary user.
    """
    if name == "fake":
        return Choice(name, None)
    if shutil.which(name) is None:
        return Choice(name, f"{name} is not installed (apt-get install {name})")
    if os.geteuid() != 0 and not rootless:
        return Choice(name, f"{name}: needs root here; tests/containers and tests/oci run rootless")
    return Choice(name, why_not(name))
