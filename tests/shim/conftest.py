"""Fixtures: the programs, shims and leashes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .leash import Leash
from .programs import Programs, sanitized, shipped
from .rig import Rig


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Programs]:
    """Return a build by its name; each is made once."""
    made: dict[str, Programs] = {}

    def get(name: str) -> Programs:
        if name not in made:
            make = {
                "release": shipped,
                "sanitized": lambda: sanitized(tmp_path_factory.mktemp("sanitized")),
            }
            made[name] = make[name]()
        return made[name]

    return get


@pytest.fixture(params=["release", "sanitized"])
def programs(request: pytest.FixtureRequest, builds: Callable[[str], Programs]) -> Iterator[Programs]:
    """The programs: tests run with both builds, unless they name one."""
    chosen = builds(request.param)
    yield chosen
    said = chosen.complaints()
    assert not said, "\n".join(said)


@pytest.fixture
def rig(programs: Programs, tmp_path: Path) -> Iterator[Rig]:
    """A process directory with a shim to be launched in it."""
    rig = Rig(programs, tmp_path / "process")
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def leash() -> Iterator[Leash]:
    """A leash whose supervisor is a process that does nothing."""
    leash = Leash()
    try:
        yield leash
    finally:
        leash.close()


@pytest.fixture
def unblocked() -> Iterator[None]:
    """Give our own dispositions and mask back after a test that changed them."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and make cgroups")
