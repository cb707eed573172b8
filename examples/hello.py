"""The smallest program: run one container, print the output and the exit status."""

import trio

from supervisor import PIPE, Bundle, open_supervisor


async def main() -> None:
    """Run a shell in a container that ends with this program, or earlier."""
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
