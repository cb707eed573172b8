"""Which runtimes the tests can use here, and why not the others."""

from __future__ import annotations

import os
import re
import shutil

import attrs
import pytest

from supervisor import Runtime
from supervisor.runtime._runtime import why_not
from supervisor.testing.runtimes import Fault, FaultyRuntime
from supervisor.testing.runtimes._host_runtime import VERBS

REAL = ("runc", "crun")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: limits, other users, or the host's pids"
)
"""For tests of what an ordinary user's containers can't have. All others run rootless too."""

RUNSC_ARGS = ("--network=none", "--ignore-cgroups=true")


@attrs.frozen
class Choice:
    """A runtime for tests.

    Attributes:
        name: runc, crun or fake.
        obstacle: why the runtime can't be used here, or None.
    """

    name: str
    obstacle: str | None

    @property
    def real(self) -> bool:
        """Whether the runtime makes real containers."""
        return self.name != "fake"

    def runtime(self, *faults: str) -> Runtime:
        """Return the runtime, with the given faults (the fake one only)."""
        if not self.real:
            return fake(*faults)
        assert not faults
        found = Runtime.find(self.name)
        return attrs.evolve(found, args=RUNSC_ARGS) if self.name == "runsc" else found


_FAULT = re.compile(
    rf"(?P<what>[a-z]+?(?:-pid|-console)?)(?:-(?P<verb>{'|'.join(VERBS)}))?(?:-(?P<when>before-pid|after-pid|after))?"
    r"(?:-(?P<condition>while|once))?(?::(?P<value>.*))?",
    re.DOTALL,
)


def fake(*faults: str) -> Runtime:
    """Return the fake runtime, with faults: ``"hang-create-before-pid"``."""
    return FaultyRuntime(*map(fault, faults)).runtime


def fault(text: str) -> Fault:
    """Return the fault of this short form: ``WHAT-VERB-WHEN``, ``:VALUE``.

    Behind ``-while`` or ``-once`` the value is that file.
    """
    parts = _FAULT.fullmatch(text)
    assert parts is not None, text
    condition, told = parts["condition"], parts["value"] or None
    value = None if condition else told
    return Fault(
        what=parts["what"],
        verb=parts["verb"],
        when=parts["when"] or "first",
        value=float(value) if value is not None and parts["what"] == "late" else value,
        only_while=told if condition == "while" else None,
        once=told if condition == "once" else None,
    )


def choose(name: str, *, rootless: bool = True) -> Choice:
    """Return the runtime of that name, and whether the runtime can be used here.

    Args:
        name: runc, crun, runsc or fake.
        rootless: whether the tests are known to run as an ordinary user.
    """
    if name == "fake":
        return Choice(name, None)
    if shutil.which(name) is None:
        return Choice(name, f"{name} is not installed (apt-get install {name})")
    if os.geteuid() != 0 and not rootless:
        return Choice(name, f"{name}: needs root here; tests that are marked rootless run")
    return Choice(name, why_not(name))
