"""Terminals that no runtime sends, and options that are refused."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

import pytest

from tests.native.rig import SLEEP, Rig, Word, gone, runtime, shell
from tests.native.terminals import console


@contextlib.contextmanager
def terminal_option(rig: Rig, command: list[Word]) -> Iterator[None]:
    with console(rig) as listener:
        fd = listener.fileno()
        rig.launch(command, "--terminal", str(fd), pass_fds=[fd])
        yield


def test_nobody_sends_a_terminal(rig: Rig) -> None:
    """A runtime that succeeds without sending a terminal has failed, and the process is killed."""
    with terminal_option(rig, runtime(*SLEEP)):
        told = rig.refused("console")
    assert told["error"].startswith("the runtime sent no terminal")
    assert told["errno"] == errno.EAGAIN
    assert gone(int((rig / "pid").read_text()))


SENDING = """
import os, socket
console = socket.socket(socket.AF_UNIX)
console.connect("console.sock")
"""


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "console.send(b'/dev/ptmx')",
        "socket.send_fds(console, [b'/dev/null'], [os.open('/dev/null', os.O_RDWR)])",
        "socket.send_fds(console, [b'two'], os.openpty())",
        "socket.send_fds(console, [b'many'], list(os.openpty()) * 50)",
    ],
    ids=["nothing", "no-descriptor", "no-terminal", "two", "many"],
)
def test_something_else_is_sent(rig: Rig, sent: str) -> None:
    """A message that isn't one terminal is refused."""
    with terminal_option(rig, [sys.executable, "-ISc", SENDING + sent]):
        told = rig.refused("console")
    assert told["error"] == "the runtime sent something that is no terminal"
    assert told["errno"] == 0


def test_a_runtime_that_fails(rig: Rig) -> None:
    """A failing runtime is reported as failing, not as a runtime that sent no terminal."""
    with terminal_option(rig, shell("exit 4")):
        assert rig.refused("runtime")["code"] == 4


@pytest.mark.parametrize("spec", ["", "x", "2", "-3", "5x", "5:6", "99999999999"])
def test_bad_options(rig: Rig, spec: str) -> None:
    """A --terminal that is no descriptor is refused, and nothing is run."""
    rig.launch(runtime(*SLEEP), "--terminal", spec)
    assert rig.refused("options")["error"].startswith("--terminal takes a listening socket")
    assert not (rig / "pid").exists()


def test_no_such_descriptor(rig: Rig) -> None:
    """A --terminal that isn't an open descriptor is refused."""
    rig.launch(runtime(*SLEEP), "--terminal", "500")
    assert rig.refused("options")["errno"] == errno.EBADF


def test_a_descriptor_that_is_no_socket(rig: Rig) -> None:
    """Nothing can come through a descriptor that is no socket."""
    fd = rig.open("exit", os.O_RDONLY | os.O_NONBLOCK)
    rig.launch(runtime(*SLEEP), "--terminal", str(fd), pass_fds=[fd])
    assert rig.refused("console")["errno"] == errno.ENOTSOCK
