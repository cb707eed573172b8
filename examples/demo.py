"""The story of this library, told with real containers.

A supervisor makes two containers and is killed with SIGKILL. They go on without it; one of them
ends. The next supervisor finds both, and knows how that one ended.

Run it as ``scripts/demo``, or ``python examples/demo.py [RUNTIME]`` where the package is installed.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from supervisor import (
    PIPE,
    Bundle,
    Container,
    Mount,
    Runtime,
    Supervisor,
    SupervisorError,
    open_supervisor,
)
from supervisor.cgroups import Hierarchies

FIRST = "--first"
"""The word that makes this program the supervisor that is going to be killed."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


# ---- the first supervisor: a process of its own, so that it can be killed ----------------


async def first(directory: Path, runtime: str, cgroup_parent: str) -> None:
    """Make two containers, run programs in one of them, and wait to be killed."""
    async with open_supervisor(
        directory / "root", runtime=runtime, cgroup_parent=cgroup_parent
    ) as sup:
        say(f"A supervisor, process {os.getpid()}, opens a root that is empty: {list(sup)}")
        web = await make_web(sup, directory)
        await run_in(web, "uname", "-s")
        await run_in(web, "sh", "-c", "exit 42")
        await run_in(web, "sh", "-c", "kill -KILL $$")
        job = await make_job(sup, directory)
        (directory / "pids").write_text(f"{web.pid} {job.pid}")
        say(f"Both run: {web.id} is {web.state.value}, {job.id} is {job.state.value}")
        os.kill(os.getpid(), signal.SIGKILL)


async def make_web(sup: Supervisor, directory: Path) -> Container:
    """Create and start a container that runs until it is stopped."""
    bundle = Bundle.from_host(["sleep", "1000"], init=True, path=directory / "web")
    web = await sup.create("web", bundle)
    say(f"  created {web.id}: its init, process {web.pid}, waits; state: {web.state.value}")
    await web.start()
    say(f"  started {web.id}: it runs `sleep 1000`; state: {web.state.value}")
    return web


async def make_job(sup: Supervisor, directory: Path) -> Container:
    """Create and start a container that ends with 7 when a file appears."""
    shared = directory / "shared"
    shared.mkdir(mode=0o755)
    script = "until [ -e /mnt/go ]; do sleep 0.02; done; exit 7"
    bundle = Bundle.from_host(
        ["sh", "-c", script], mounts=[Mount(shared, "/mnt")], path=directory / "job"
    )
    job = await sup.create("job", bundle)
    await job.start()
    say(f"  started {job.id}: process {job.pid}, which will exit with 7 when it is told to")
    return job


async def run_in(box: Container, *args: str) -> None:
    """Run a program in a container, and tell what it printed and how it ended."""
    process = await box.exec(args, stdout=PIPE)
    assert process.stdout is not None
    printed = b""
    async for chunk in process.stdout:
        printed += chunk
    await process.stdout.aclose()
    said = f", and printed {printed.decode().strip()!r}" if printed else ""
    say(f"  exec in {box.id}: `{' '.join(args)}` {await process.wait()}{said}")


# ---- between the two ---------------------------------------------------------------------


def alone(directory: Path) -> None:
    """Nobody supervises: look at the containers' processes, and let one of them end."""
    web, job = map(int, (directory / "pids").read_text().split())
    parent = Path(f"/proc/{web}/stat").read_text().rpartition(")")[2].split()[1]
    name = Path(f"/proc/{parent}/comm").read_text().strip()
    say(f"  process {web} runs on: its parent is {name} (process {parent}), which outlives it")
    job_fd = os.pidfd_open(job)
    (directory / "shared/go").touch()
    ended, _, _ = select.select([job_fd], [], [], 30)
    os.close(job_fd)
    say(f"  process {job} was told to end, and {'has ended' if ended else 'goes on?'}: who saw it?")


# ---- the second supervisor ---------------------------------------------------------------


async def second(directory: Path, runtime: Runtime, cgroup_parent: str) -> None:
    """Adopt what the first one left, tell what became of it, and remove it."""
    async with open_supervisor(
        directory / "root", runtime=runtime, cgroup_parent=cgroup_parent
    ) as sup:
        say(f"The next supervisor, process {os.getpid()}, opens the same root: {list(sup)}")
        job, web = sup["job"], sup["web"]
        status = await job.wait()
        at = f"{status.at:%H:%M:%S}" if status.at else "some time"
        say(f"  {job.id} is {job.state.value}: {status}, told by its {status.source.value} at {at}")
        say(f"  {web.id} is {web.state.value}: process {web.pid}, the same as before")
        await run_in(web, "echo", "still here")
        stopped = await web.stop(grace=10)
        how = "had to be killed" if stopped.escalated else "ended when SIGTERM asked it to"
        say(f"  stopped {web.id}: it {how}: {stopped.status}, 128 + 15")
        for box in (job, web):
            await box.delete()
        say(f"  deleted both; containers left: {list(sup)}, broken: {list(sup.broken)}")


# ---- all of it ---------------------------------------------------------------------------


def choose(name: str | None) -> Runtime:
    """Choose a runtime, with the library's own words on why."""
    told = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("supervisor")
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        return Runtime.find(name)
    finally:
        logger.removeHandler(told)


async def clear(directory: Path, runtime: Runtime, cgroup_parent: str) -> None:
    """Delete whatever is left, if the story broke off, and the cgroups' parent."""
    root = directory / "root"
    async with open_supervisor(root, runtime=runtime, cgroup_parent=cgroup_parent) as sup:
        for box in list(sup.values()):
            await box.delete(force=True)
    for path in Hierarchies.discover().remains(cgroup_parent):
        os.rmdir(path)  # the runtime made it; whatever were in it would make this fail


def tell(runtime: Runtime) -> None:
    """Tell the story; nothing is left at the end, however it ends."""
    parent = f"/trio-supervisor-demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="trio-supervisor-demo-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # a user namespace's root must be able to pass through
        try:
            command = [sys.executable, __file__, FIRST, name, runtime.path, parent]
            if subprocess.run(command, check=False).returncode != -signal.SIGKILL:
                sys.exit("the first supervisor failed: the reason stands above")
            say("That supervisor was killed: SIGKILL. Nobody supervises now.")
            alone(directory)
            trio.run(second, directory, runtime, parent)
        finally:
            trio.run(clear, directory, runtime, parent)
        pids = (directory / "pids").read_text().split()
    left = [path for path in (name, *(f"/proc/{pid}" for pid in pids)) if os.path.exists(path)]
    say(f"Left behind: {left}" if left else "Nothing is left: no process, no cgroup, no file.")


def main(arguments: list[str]) -> None:
    """Be one of the two programs."""
    if arguments[:1] == [FIRST]:
        trio.run(first, Path(arguments[1]), arguments[2], arguments[3])
        return
    who = "root" if os.geteuid() == 0 else "an ordinary user, so in user namespaces"
    try:
        runtime = choose(arguments[0] if arguments else None)
        say(f"Real containers, run by {runtime.name} as {who}.")
        tell(runtime)
    except SupervisorError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
