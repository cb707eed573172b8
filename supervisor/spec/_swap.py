"""Whether this host can limit swap.

Source: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import glob
import os


def counts_swap(root: str = "/sys/fs/cgroup") -> bool:
    """Whether cgroups have limits for swap here; if not, a runtime would fail to set one.

    Args:
        root: where the cgroups are mounted.
    """
    if os.path.exists(f"{root}/memory/memory.memsw.limit_in_bytes"):
        return True
    # The root cgroup of version 2 has no limits: look at any group with the memory controller.
    return any(glob.iglob(f"{root}/*/memory.swap.max"))
