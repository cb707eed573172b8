"""The smallest program: one container, its output, how it ended."""

import trio

from supervisor import PIPE, Bundle, open_supervisor


async def main() -> None:
    """Run a shell in a container that dies with this program, if not before."""
    bundle = Bundle.from_host(["sh", "-c", "echo hello from $$; exit 3"])
    async with (
        open_supervisor() as sup,
        await sup.create("hello", bundle, stdout=PIPE) as box,
    ):
        await box.start()
        assert box.stdout is not None
        print(await box.stdout.receive_some(), await box.wait())


if __name__ == "__main__":
    trio.run(main)
