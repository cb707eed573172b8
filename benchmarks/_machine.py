"""What the benchmarks share: which runtimes can run here, and a view of cgroups that crun takes."""

from __future__ import annotations

import os
import shutil
import sys

from supervisor.oci._runtime import why_not

_MARK = "SUPERVISOR_BENCHMARK_VIEW"
_UNIFIED = "/sys/fs/cgroup/unified"


def enter_private_view(runtimes: list[str]) -> None:
    """Run this program again in a mount namespace without the mount that crun refuses.

    Nothing happens where crun isn't wanted, runs as it is, or we aren't root.
    """
    if "crun" not in runtimes or os.environ.get(_MARK) or os.geteuid() != 0:
        return
    if shutil.which("crun") is None or why_not("crun") is None:
        return
    os.environ[_MARK] = "1"
    script = f'umount {_UNIFIED} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *sys.argv]
    sys.stdout.flush()
    os.execvp(command[0], command)


def able(runtimes: list[str]) -> list[str]:
    """Return those of the runtimes that can run here; say why the others can't."""
    chosen = []
    for name in runtimes:
        obstacle = "not installed" if shutil.which(name) is None else why_not(name)
        if obstacle is None:
            chosen.append(name)
        else:
            print(f"{name}: left out: {obstacle}")
    return chosen
