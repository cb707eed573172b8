"""The machine of the benchmarks: a description, and which runtimes can run there."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from supervisor.runtime._runtime import why_not

_UNIFIED = "/sys/fs/cgroup/unified"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def able(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the runtimes that can run here, and why the others can't."""
    obstacles = {name: obstacle for name in names if (obstacle := _obstacle(name))}
    return [name for name in names if name not in obstacles], obstacles


def _obstacle(name: str) -> str | None:
    if shutil.which(name) is None:
        return f"not installed: apt-get install {name}"
    return why_not(name)


def private_view(names: list[str]) -> list[str]:
    """Return a command prefix with which crun can run; empty if crun runs without, or can't run.

    crun refuses hybrid cgroups. The prefix makes a mount namespace without the version 2 hierarchy,
    and the machine stays unchanged.
    """
    if "crun" not in names or shutil.which("crun") is None or os.geteuid() != 0:
        return []
    if why_not("crun") is None or not os.path.ismount(_UNIFIED):
        return []
    script = f'umount {_UNIFIED} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def become_subreaper() -> None:
    """Become the subreaper: orphans, such as a bare loop's containers, become our children."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(parent: int) -> None:
    """Make the kernel send us SIGTERM when the process that started us ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise KeyboardInterrupt


def raise_descriptor_limit() -> None:
    """Raise our limit of open files to the maximum: a thousand containers need four thousand."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def describe() -> dict[str, str]:
    """Return the facts about the machine on which the figures depend."""
    versions = {name: _first_line([name, "--version"]) for name in ("crun", "runc")}
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) >> 10
    return {
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{memory:,} MiB",
        "kernel": f"{platform.system()} {_release(platform.release())}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": metadata.version("trio"),
        **{name: version for name, version in versions.items() if version},
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _release(done.stdout.partition("\n")[0])


def _release(text: str) -> str:
    """Return the numbers of a version, without the additions of a distribution."""
    found = re.search(r"\d+(\.\d+)+", text)
    return text if found is None else found[0]


def processes_below(pid: int) -> list[int]:
    """Return all descendants of a process, the nearest first."""
    found = [pid]
    for parent in found:  # the list grows during the loop
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found[1:]


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)
