"""The story of this library, told with real containers.

A supervisor makes two containers and is killed with SIGKILL. The containers go on without a
supervisor, and one of them ends. The next supervisor finds both, and knows the exit status.

Run this as ``scripts/demo``, or, with the package installed, as ``python examples/demo.py
[RUNTIME]``.
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
"""The argument with which this program is the supervisor that will be killed."""


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


# ---- the first supervisor: a separate process, which can be killed -----------------------


async def first(directory: Path, runtime: str, cgroup_parent: str) -> None:
    """Make two containers, run programs in one of them, and die by SIGKILL."""
    async with open_supervisor(
        directory / "root", runtime=runtime, cgroup_parent=cgroup_parent
    ) as sup:
        say(f"A supervisor, process {os.getpid()}, opens an empty root: {list(sup)}")
        web = await make_web(sup, directory)
        await run_in(web, "uname", "-s")
        await run_in(web, "sh", "-c", "exit 42")
        await run_in(web, "sh", "-c", "kill -KILL $$")
        job = await make_job(sup, directory)
        (directory / "pids").write_text(f"{web.pid} {job.pid}")
        say(f"Both run: {web.id} is {web.state.value}, {job.id} is {job.state.value}")
        os.kill(os.getpid(), signal.SIGKILL)


async def make_web(sup: Supervisor, directory: Path) -> Container:
    """Create and start a container that runs until the supervisor stops the container."""
    bundle = Bundle.from_host(["sleep", "1000"], init=True, path=directory / "web")
    web = await sup.create("web", bundle)
    say(f"  created {web.id}: the init, process {web.pid}, waits; state: {web.state.value}")
    await web.start()
    say(f"  started {web.id}, which runs `sleep 1000`; state: {web.state.value}")
    return web


async def make_job(sup: Supervisor, directory: Path) -> Container:
    """Create and start a container that exits with 7 when a file appears."""
    shared = directory / "shared"
    shared.mkdir(mode=0o755)
    script = "until [ -e /mnt/go ]; do sleep 0.02; done; exit 7"
    bundle = Bundle.from_host(
        ["sh", "-c", script], mounts=[Mount(shared, "/mnt")], path=directory / "job"
    )
    job = await sup.create("job", bundle)
    await job.start()
    say(f"  started {job.id}: process {job.pid}, which will exit with 7 when a file appears")
    return job


async def run_in(box: Container, *args: str) -> None:
    """Run a program in a container, and print the output and the exit status."""
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
    """Without a supervisor: look at the containers' processes, and make one of them end."""
    web, job = map(int, (directory / "pids").read_text().split())
    parent = Path(f"/proc/{web}/stat").read_text().rpartition(")")[2].split()[1]
    name = Path(f"/proc/{parent}/comm").read_text().strip()
    say(f"  process {web} runs on: its parent is {name} (process {parent})")
    job_fd = os.pidfd_open(job)
    (directory / "shared/go").touch()
    ended, _, _ = select.select([job_fd], [], [], 30)
    os.close(job_fd)
    say(f"  the file appeared; process {job} {'has ended' if ended else 'still runs?'}")


# ---- the second supervisor ---------------------------------------------------------------


async def second(directory: Path, runtime: Runtime, cgroup_parent: str) -> None:
    """Adopt the containers of the first supervisor, print their state, and delete them."""
    async with open_supervisor(
        directory / "root", runtime=runtime, cgroup_parent=cgroup_parent
    ) as sup:
        say(f"The next supervisor, process {os.getpid()}, opens the same root: {list(sup)}")
        job, web = sup["job"], sup["web"]
        status = await job.wait()
        at = f"{status.at:%H:%M:%S}" if status.at else "some time"
        say(f"  {job.id} is {job.state.value}: {status}, as its {status.source.value} saw at {at}")
        say(f"  {web.id} is {web.state.value}: process {web.pid}, the same as before")
        await run_in(web, "echo", "still here")
        stopped = await web.stop(grace=10)
        how = "had to be killed" if stopped.escalated else "ended on SIGTERM"
        say(f"  stopped {web.id}, which {how}: {stopped.status}, 128 + 15")
        for box in (job, web):
            await box.delete()
        say(f"  deleted both; containers left: {list(sup)}, broken: {list(sup.broken)}")


# ---- all of it ---------------------------------------------------------------------------


def choose(name: str | None) -> Runtime:
    """Choose a runtime, and print the library's reasons."""
    told = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger("supervisor")
    logger.addHandler(told)
    logger.setLevel(logging.INFO)
    try:
        return Runtime.find(name)
    finally:
        logger.removeHandler(told)


async def clear(directory: Path, runtime: Runtime, cgroup_parent: str) -> None:
    """Delete the containers that are left after a failure, and the parent of the cgroups."""
    root = directory / "root"
    async with open_supervisor(root, runtime=runtime, cgroup_parent=cgroup_parent) as sup:
        for box in list(sup.values()):
            await box.delete(force=True)
    for path in Hierarchies.discover().remains(cgroup_parent):
        os.rmdir(path)  # the runtime made this cgroup; fails if anything is left inside


def tell(runtime: Runtime) -> None:
    """Tell the story; nothing is left afterwards, even after a failure."""
    parent = f"/trio-supervisor-demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="trio-supervisor-demo-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # a user namespace's root must be able to pass through
        try:
            command = [sys.executable, __file__, FIRST, name, runtime.path, parent]
            if subprocess.run(command, check=False).returncode != -signal.SIGKILL:
                sys.exit("the first supervisor failed: see the reason above")
            say("That supervisor was killed by SIGKILL. Now there is no supervisor.")
            alone(directory)
            trio.run(second, directory, runtime, parent)
        finally:
            trio.run(clear, directory, runtime, parent)
        pids = (directory / "pids").read_text().split()
    left = [path for path in (name, *(f"/proc/{pid}" for pid in pids)) if os.path.exists(path)]
    say(f"Left behind: {left}" if left else "Nothing is left: no process, no cgroup, no file.")


def main(arguments: list[str]) -> None:
    """Be the first supervisor, or the program that tells the story."""
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
