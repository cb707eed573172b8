"""``python -m tests.support.forked``: forks a program for each line of stdin; see `Forker`.

What a program needs is imported here, once, before the first such program is forked. A program
ends as any program of Python's, by the way out of ``main``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

import trio

_PLACES: dict[int, str] = {}
"""The directories of the programs that haven't ended."""


def main() -> None:
    """Fork a program for each line, and answer with the program's pid."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some die of SIGSEGV
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's signals: the test ends us
    while line := sys.stdin.readline():
        told = json.loads(line)
        call = _find(told["call"])
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _run(call, told)
            return
        _PLACES[pid] = told["place"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


def _find(name: str) -> Callable[[dict[str, Any]], Any]:
    module, function = name.split(":")
    found: Callable[[dict[str, Any]], Any] = getattr(importlib.import_module(module), function)
    return found


def _reap(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            place = _PLACES.pop(pid)
            with contextlib.suppress(FileNotFoundError):  # the test doesn't want to know any more
                with open(f"{place}/new", "w") as file:
                    file.write(str(os.waitstatus_to_exitcode(status)))
                os.rename(f"{place}/new", f"{place}/status")


def _run(call: Callable[[dict[str, Any]], Any], told: dict[str, Any]) -> None:
    """Be the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    paths = (os.devnull, f"{told['place']}/out", f"{told['place']}/err")
    for fd, path in enumerate(paths):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(told["environ"])
    tempfile.tempdir = os.environ.get("TMPDIR")
    if inspect.iscoroutinefunction(call):
        trio.run(call, told["told"])
    else:
        call(told["told"])


if __name__ == "__main__":
    main()
