"""Run programs that nobody trusts: without privileges or network, for a bounded time.

Each one gets a container of its own, all of them run at once, and none outlives this program,
however that ends.
"""

from __future__ import annotations

import trio

from supervisor import PIPE, STDOUT, Bundle, Container, Supervisor, open_supervisor

SECONDS = 3.0
OUTPUT_BYTES = 10_000
PROGRAMS = {
    "well-behaved": "echo $((6 * 7))",
    "curious": "ls /home; cat /etc/shadow",
    "failing": "exit 3",
    "crashing": "kill -SEGV $$",
    "endless": "while :; do :; done",
    "talkative": "yes",
}


async def judge(sup: Supervisor, name: str, script: str) -> None:
    """Run one program, and say what became of it."""
    bundle = Bundle.from_host(["sh", "-c", script], init=True)
    async with await sup.create(name, bundle, stdout=PIPE, stderr=STDOUT) as box:
        await box.start()
        output = b""
        with trio.move_on_after(SECONDS) as limit:
            output = await read(box)
        stopped = await box.stop(grace=0.5)
        why = " (out of time)" if limit.cancelled_caught else ""
        print(f"{name:13}{stopped.status}{why}: {output[:60].decode(errors='replace')!r}")


async def read(box: Container) -> bytes:
    """Return what a container prints, or the beginning of it."""
    assert box.stdout is not None
    output = b""
    async for chunk in box.stdout:
        output += chunk
        if len(output) >= OUTPUT_BYTES:
            break
    return output


async def main() -> None:
    """Judge all of them at once."""
    async with open_supervisor() as sup, trio.open_nursery() as nursery:
        for name, script in PROGRAMS.items():
            nursery.start_soon(judge, sup, name, script)


if __name__ == "__main__":
    trio.run(main)
