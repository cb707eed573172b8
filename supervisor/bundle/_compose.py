"""Compose config.json from arguments, and derive the one that is run: pure functions.

Source: OCI runtime spec 1.0.2, config.md and config-linux.md.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from ..spec import (
    INIT_ARGS,
    INIT_DESTINATION,
    OVERLAY,
    Mount,
    absolute_sources,
    counts_swap,
    layer_annotations,
    process_privileges,
    seccomp_section,
    system_mounts,
    tmpfs,
)
from ..userns import UserNamespace
from ._arguments import CPU_PERIOD_MICROSECONDS, Arguments, check_total

OCI_VERSION = "1.0.2"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
THROTTLES = "/sys/devices/system/cpu/cpu*/thermal_throttle"
"""Like ``/proc/interrupts``, these show when other users compute, and which keys they type."""

READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

TTY_GROUP = 5


def compose_spec(
    wanted: Arguments,
    *,
    root_path: str,
    user: Mapping[str, Any],
    host_mounts: Sequence[dict[str, Any]] = (),
    host_masked: Sequence[str] = (),
    namespace: UserNamespace | None = None,
    ordinary: bool = False,
    annotations: Mapping[str, str] = MappingProxyType({}),
    init: str | None = None,
) -> dict[str, Any]:
    """Return the whole config.json.

    Args:
        wanted: what to run.
        root_path: ``root.path``.
        user: the ``user`` of the process object.
        host_mounts: the host's directories and files that make up the root filesystem.
        host_masked: the paths there that are covered.
        namespace: the user namespace, or None for none.
        ordinary: whether the runtime runs as an ordinary user, not as root.
        annotations: further annotations.
        init: path of the static init on the host, or None for no init.
    """
    process = _process(wanted, user=user, init=init is not None)
    check_total(process)
    linux = _linux(wanted, process, masked=host_masked, namespace=namespace, ordinary=ordinary)
    layered = wanted.writable == OVERLAY
    noted = {**(layer_annotations(wanted.layer_bytes) if layered else {}), **annotations}
    annotated = {"annotations": noted} if noted else {}
    return {
        "ociVersion": OCI_VERSION,
        **annotated,
        "process": process,
        "root": {"path": root_path, "readonly": wanted.writable != "direct"},
        "hostname": wanted.hostname,
        "mounts": _mounts(
            wanted, host_mounts=host_mounts, namespace=namespace, ordinary=ordinary, init=init
        ),
        "linux": linux,
    }


def _linux(
    wanted: Arguments,
    process: Mapping[str, Any],
    *,
    masked: Sequence[str],
    namespace: UserNamespace | None,
    ordinary: bool,
) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": _namespaces(network=wanted.network, user=namespace is not None),
        "maskedPaths": [*MASKED_PATHS, *_throttles(), *masked],
        "readonlyPaths": list(READONLY_PATHS),
    }
    seccomp = seccomp_section(
        wanted.privileges.seccomp or "default", process["capabilities"]["bounding"]
    )
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if namespace is not None:
        linux |= namespace.to_json()
    resources = _resources(wanted, devices=not ordinary)
    if resources:
        linux["resources"] = resources
    return linux


def derive_spec(spec: Mapping[str, Any], bundle_path: str, *, cgroup: str | None) -> dict[str, Any]:
    """Return the config.json that is run: all paths are absolute, so any directory will do.

    The result shares unchanged parts with ``spec``, so don't change the result: a deep copy took
    longer than all other Python code in a create.

    Args:
        spec: a checked config.json.
        bundle_path: absolute path of the directory that ``spec`` was written for.
        cgroup: ``linux.cgroupsPath``. With None the runtime chooses, and the bundle's path is left
            out: all containers of the bundle would share that cgroup.
    """
    root_path = os.path.normpath(os.path.join(bundle_path, spec["root"]["path"]))
    derived = {
        **spec,
        "root": {**spec["root"], "path": root_path},
        "process": {**spec["process"], "terminal": False},
        "linux": {**spec["linux"], "cgroupsPath": cgroup},
    }
    if spec["linux"].get("namespaces"):
        # without empty paths: crun would try to join one
        derived["linux"]["namespaces"] = [
            one if one.get("path") else {"type": one["type"]} for one in spec["linux"]["namespaces"]
        ]
    if cgroup is None:
        del derived["linux"]["cgroupsPath"]
    if spec.get("mounts"):
        derived["mounts"] = absolute_sources(spec["mounts"], bundle_path)
    return derived


def _namespaces(*, network: str, user: bool) -> list[dict[str, str]]:
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"]
    if network == "none":
        kinds.append("network")
    if user:
        kinds.append("user")
    return [{"type": kind} for kind in kinds]


def _process(wanted: Arguments, *, user: Mapping[str, Any], init: bool) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": dict(user),
        "args": [*(INIT_ARGS if init else ()), *wanted.args],
        "env": [f"{name}={value}" for name, value in wanted.env.items()],
        "cwd": wanted.cwd,
        "noNewPrivileges": True,
        **process_privileges(wanted.privileges, uid=user["uid"]),
    }


@cache
def _throttles() -> tuple[str, ...]:
    """Return the paths that exist here: a runtime would try thousands of missing ones in vain."""
    return tuple(sorted(glob.glob(THROTTLES)))


def _mounts(
    wanted: Arguments,
    *,
    host_mounts: Sequence[dict[str, Any]],
    namespace: UserNamespace | None,
    ordinary: bool,
    init: str | None,
) -> list[dict[str, Any]]:
    """Return all mounts: a later one may be inside an earlier one, never the other way round."""
    tty_group = namespace is None or any(
        entry.host(TTY_GROUP) is not None for entry in namespace.gids
    )
    # Only the owner of the network namespace may mount its sysfs.
    own_sysfs = namespace is None or wanted.network == "none"
    system = system_mounts(tty_group=tty_group, own_sysfs=own_sysfs, cgroup=not ordinary)
    private = (
        []
        if wanted.writable
        else [
            tmpfs("/tmp", "nodev", "mode=1777", size_bytes=wanted.tmpfs_bytes),
            tmpfs("/run", "nodev", "mode=1777", size_bytes=wanted.tmpfs_bytes),
        ]
    )
    mounts = [*host_mounts, *system, *private, *wanted.mounts]
    if init is not None:
        mounts.append(Mount(init, INIT_DESTINATION).to_json())
    return mounts


def _resources(wanted: Arguments, *, devices: bool) -> dict[str, Any]:
    """Return ``linux.resources``; only root can limit devices."""
    resources: dict[str, Any] = {}
    if devices:
        resources["devices"] = [{"allow": False, "access": "rwm"}]
    if wanted.memory_bytes is not None:
        # `swap` limits memory and swap together; `limit` doesn't count swapped-out memory.
        swap = {"swap": wanted.memory_bytes} if counts_swap() else {}
        resources["memory"] = {"limit": wanted.memory_bytes, **swap}
    if wanted.pids is not None:
        resources["pids"] = {"limit": wanted.pids}
    if wanted.cpus is not None:
        quota = round(wanted.cpus * CPU_PERIOD_MICROSECONDS)
        resources["cpu"] = {"quota": quota, "period": CPU_PERIOD_MICROSECONDS}
    return resources
