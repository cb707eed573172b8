"""A program that deletes container ``a`` of a root, for a test that kills the program meanwhile."""

from __future__ import annotations

import sys

import trio

from supervisor import open_supervisor


async def _delete(root: str, cgroup_parent: str, runtime: str) -> None:
    async with open_supervisor(root, cgroup_parent=cgroup_parent, runtime=runtime) as sup:
        await sup["a"].delete(force=True)


if __name__ == "__main__":
    root, cgroup_parent, runtime = sys.argv[1:]
    trio.run(_delete, root, cgroup_parent, runtime)
