"""Sets of what others keep."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import pytest
import trio

from supervisor.system import WeakSet


class Thing:
    """An object that a `WeakSet` can hold."""


def test_an_interrupt_as_something_goes() -> None:
    """An interrupt while an entry is removed is raised; the interpreter once printed and lost such
    an interrupt, once in some 600 at random moments."""
    things: WeakSet[Thing] = WeakSet()
    went: list[str] = []

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_remove" and not went:
            went.append("going")
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        thing = Thing()
        things.add(thing)
        sys.setprofile(interrupt)
        try:
            del thing
        finally:
            sys.setprofile(None)
        went.append("gone")
        await trio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert went == ["going", "gone"] and not things
