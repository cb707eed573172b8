"""Run Python that nobody trusts: without privileges or network, in bounded memory and time.

Each snippet gets a container of its own, all of them run at once, and none outlives this program,
however that ends. Of each one comes its output, how it ended, and why, if it was ended.

Run it as ``python examples/sandbox.py``, or with a snippet behind it.
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
# Without root, limits need a cgroup that somebody has delegated.
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
if LIMITS:  # nothing else would stop these two
    SNIPPETS |= {
        "greedy": "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "forking": "import os, time\nwhile True: os.fork() or time.sleep(60)",
    }


@attrs.frozen
class Verdict:
    """What became of a snippet.

    Attributes:
        output: what it printed, or the beginning of that.
        status: how it ended.
        reason: why it was ended, or "" if it ended by itself.
    """

    output: bytes
    status: ExitStatus
    reason: str


async def judge(sup: Supervisor, name: str, snippet: str) -> Verdict:
    """Run a snippet in a container of its own."""
    bundle = Bundle.from_host(
        [*PYTHON, snippet],
        init=True,  # as pid 1 itself it wouldn't end by the signals that it sends itself
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
    """Read what a container prints, or the beginning of it."""
    assert box.stdout is not None
    async for chunk in box.stdout:
        output += chunk
        if len(output) >= OUTPUT_BYTES:
            break


async def tell(sup: Supervisor, name: str, snippet: str) -> None:
    """Judge a snippet, and print the verdict: its last line of output, its end, the reason."""
    verdict = await judge(sup, name, snippet)
    last = (verdict.output.decode(errors="replace").strip().splitlines() or [""])[-1]
    known = verdict.reason in str(verdict.status)
    why = "" if known else f" ({verdict.reason})"
    print(f"{name:9} {verdict.status}{why}: {last[:60]}")


async def main(snippets: dict[str, str]) -> None:
    """Judge all of them at once."""
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        for name, snippet in snippets.items():
            nursery.start_soon(tell, sup, name, snippet)


if __name__ == "__main__":
    trio.run(main, {"given": sys.argv[1]} if len(sys.argv) > 1 else SNIPPETS)
