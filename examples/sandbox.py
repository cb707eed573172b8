"""Run untrusted Python: without privileges or network, with limits on memory and time.

Each snippet runs in a container of its own, all at the same time. No container outlives this
program, even if the program is killed. Each verdict has the output, the exit status, and the reason
if the snippet was ended.

Run this as ``python examples/sandbox.py``, or as ``python examples/sandbox.py SNIPPET``.
"""

from __future__ import annotations

import os
import signal
import sys

import attrs
import trio

from supervisor import PIPE, STDOUT, Bundle, Container, ExitStatus, Supervisor, open_supervisor

SECONDS = 3.0
OUTPUT_BYTES = 10_000
# Without root, limits need a delegated cgroup.
LIMITS = {"memory_bytes": 64 << 20, "pids": 16} if os.geteuid() == 0 else {}
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c"]

SNIPPETS = {
    "good": "print(6 * 7)",
    "curious": "print(open('/etc/shadow').read())",
    "talking": "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
    "failing": "raise SystemExit(3)",
    "crashing": "import os; os.abort()",
    "endless": "while True: pass",
    "wordy": "while True: print('more')",
}
if LIMITS:  # only limits stop these two
    SNIPPETS |= {
        "greedy": "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "forking": "import os, time\nwhile True: os.fork() or time.sleep(60)",
    }


@attrs.frozen
class Verdict:
    """The result of a snippet.

    Attributes:
        output: the output, or the beginning of a long output.
        status: the exit status.
        reason: why the snippet was ended; "" if the snippet ended by itself.
    """

    output: bytes
    status: ExitStatus
    reason: str


async def judge(sup: Supervisor, name: str, snippet: str) -> Verdict:
    """Run a snippet in a container of its own."""
    bundle = Bundle.from_host(
        [*PYTHON, snippet],
        init=True,  # a program that is pid 1 ignores its own fatal signals
        network="none",
        userns="auto",
        **LIMITS,
    )
    async with await sup.create(name, bundle, stdout=PIPE, stderr=STDOUT) as box:
        await box.start()
        output = bytearray()
        with trio.move_on_after(SECONDS) as limit:
            await read(box, output)
            if len(output) < OUTPUT_BYTES:
                await box.wait()
        reason = ""
        if box.status is None:
            reason = "out of time" if limit.cancelled_caught else "too much output"
        stopped = await box.stop(grace=0.5, ask_with=signal.SIGKILL)
        if stopped.status.oom_killed:
            reason = "out of memory"
        return Verdict(bytes(output[:OUTPUT_BYTES]), stopped.status, reason)


async def read(box: Container, output: bytearray) -> None:
    """Read a container's output, or the beginning of a long output."""
    assert box.stdout is not None
    async for chunk in box.stdout:
        output += chunk
        if len(output) >= OUTPUT_BYTES:
            break


async def tell(sup: Supervisor, name: str, snippet: str) -> None:
    """Judge a snippet, and print the verdict: the exit status, the reason, the last line."""
    verdict = await judge(sup, name, snippet)
    last = (verdict.output.decode(errors="replace").strip().splitlines() or [""])[-1]
    known = verdict.reason in str(verdict.status)
    why = "" if known else f" ({verdict.reason})"
    print(f"{name:9} {verdict.status}{why}: {last[:60]}")


async def main(snippets: dict[str, str]) -> None:
    """Judge all snippets at the same time."""
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        for name, snippet in snippets.items():
            nursery.start_soon(tell, sup, name, snippet)


if __name__ == "__main__":
    trio.run(main, {"given": sys.argv[1]} if len(sys.argv) > 1 else SNIPPETS)
