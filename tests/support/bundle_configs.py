"""A valid config.json that uses every field we know, and ways to spoil that file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]

_ID_MAP = {"containerID": 0, "hostID": 100000, "size": 65536}
_HOOK = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
_RATE = {"major": 8, "minor": 0, "rate": 600}
_CAPABILITIES = ["CAP_KILL"]


def minimal() -> dict[str, Any]:
    """Return the smallest config.json that loads."""
    return {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "linux": {},
    }


def full() -> dict[str, Any]:
    """Return a config.json with every known field."""
    return {
        "ociVersion": "1.0.2-dev",
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "box",
        "domainname": "example.org",
        "mounts": [
            {
                "destination": "/data",
                "type": "bind",
                "source": "data",
                "options": ["rbind"],
                "uidMappings": [dict(_ID_MAP)],
                "gidMappings": [dict(_ID_MAP)],
            }
        ],
        "hooks": {
            name: [copy.deepcopy(_HOOK)]
            for name in (
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            )
        },
        "annotations": {"org.example": "yes"},
        "linux": _linux(),
    }


def _process() -> dict[str, Any]:
    return {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {
            "uid": 1,
            "gid": 1,
            "umask": 18,
            "additionalGids": [5],
            "username": "x",
        },
        "args": ["sh", "-c", "true"],
        "commandLine": "",
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/",
        "capabilities": {
            kind: list(_CAPABILITIES)
            for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "noNewPrivileges": True,
        "apparmorProfile": "none",
        "oomScoreAdj": -1,
        "selinuxLabel": "label",
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "priority": 0, "flags": []},
    }


def _linux() -> dict[str, Any]:
    return {
        "namespaces": [
            {"type": "pid"},
            {"type": "user"},
            {"type": "network", "path": "/n"},
        ],
        "uidMappings": [dict(_ID_MAP)],
        "gidMappings": [dict(_ID_MAP)],
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
        "devices": [
            {
                "type": "c",
                "path": "/dev/fuse",
                "major": 10,
                "minor": 229,
                "fileMode": 438,
                "uid": 0,
                "gid": 0,
            }
        ],
        "cgroupsPath": "/x",
        "resources": _resources(),
        "intelRdt": {
            "closID": "a",
            "l3CacheSchema": "b",
            "memBwSchema": "c",
            "enableCMT": True,
            "enableMBM": False,
        },
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": _seccomp(),
        "rootfsPropagation": "private",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "l",
        "personality": {"domain": "LINUX", "flags": []},
    }


def _seccomp() -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/s",
        "listenerMetadata": "m",
        "syscalls": [
            {
                "names": ["kexec_load"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }


def _resources() -> dict[str, Any]:
    return {
        "devices": [{"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {
            "limit": 1,
            "reservation": 1,
            "swap": -1,
            "kernel": -1,
            "kernelTCP": -1,
            "swappiness": 0,
            "disableOOMKiller": False,
            "useHierarchy": True,
            "checkBeforeUpdate": False,
        },
        "cpu": {
            "shares": 1024,
            "quota": 1000,
            "burst": 0,
            "period": 100000,
            "realtimeRuntime": 1,
            "realtimePeriod": 1,
            "cpus": "0-1",
            "mems": "0",
            "idle": 0,
        },
        "pids": {"limit": 10},
        "blockIO": {
            "weight": 10,
            "leafWeight": 10,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
            "throttleReadBpsDevice": [dict(_RATE)],
            "throttleWriteBpsDevice": [dict(_RATE)],
            "throttleReadIOPSDevice": [dict(_RATE)],
            "throttleWriteIOPSDevice": [dict(_RATE)],
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
        "rdma": {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 2}},
        "unified": {"memory.high": "1"},
    }


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where every value inside ``value`` stands, containers before what they hold."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield (*place, key)
        yield from places(inner, (*place, key))


def name(place: Place) -> str:
    """Return a place in the notation of the errors: ``process.args[0]``."""
    words = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return "".join(words).removeprefix(".")


def value_at(config: Any, place: Place) -> Any:
    """Return what stands at a place."""
    for key in place:
        config = config[key]
    return config


def replaced(config: Any, place: Place, value: Any) -> Any:
    """Return a copy with another value at a place."""
    copied = copy.deepcopy(config)
    value_at(copied, place[:-1])[place[-1]] = value
    return copied


def without(config: Any, place: Place) -> Any:
    """Return a copy that lacks what stands at a place."""
    copied = copy.deepcopy(config)
    del value_at(copied, place[:-1])[place[-1]]
    return copied
