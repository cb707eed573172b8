"""The form of a config.json: one table for all that the runtimes read.

Source: OCI runtime spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

from ..values import MAX_ID
from ._check import (
    Check,
    Fault,
    absolute,
    array,
    boolean,
    integer,
    pattern,
    record,
    table,
    text,
    word,
)

_ID = integer(0, MAX_ID)
_SIZE = integer(0, MAX_ID + 1)
_INT32 = integer(-(2**31), 2**31 - 1)
_UINT32 = integer(0, 2**32 - 1)
_INT64 = integer(-(2**63), 2**63 - 1)
_UINT64 = integer(0, 2**64 - 1)
_TEXTS = array(text)

_ENVIRONMENT = array(pattern("[^=\0]+=.*", "NAME=VALUE"))
_MAPPINGS = array(
    record(
        {"containerID": _ID, "hostID": _ID, "size": _SIZE},
        required=("containerID", "hostID", "size"),
    )
)
_RLIMIT = record(
    {"type": word, "soft": _UINT64, "hard": _UINT64}, required=("type", "soft", "hard")
)

PROCESS: Check = record(
    {
        "terminal": boolean,
        "consoleSize": record({"height": _UINT32, "width": _UINT32}),
        "user": record(
            {
                "uid": _ID,
                "gid": _ID,
                "umask": _UINT32,
                "additionalGids": array(_ID),
                "username": text,
            }
        ),
        "args": array(text, least=1, empty="give the program to run and its arguments"),
        "commandLine": text,
        "env": _ENVIRONMENT,
        "cwd": absolute,
        "capabilities": record(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _TEXTS)
        ),
        "rlimits": array(_RLIMIT),
        "noNewPrivileges": boolean,
        "apparmorProfile": text,
        "oomScoreAdj": _INT32,
        "selinuxLabel": text,
        "ioPriority": record({"class": text, "priority": _INT32}),
        "scheduler": record({"policy": text, "nice": _INT32, "priority": _INT32, "flags": _TEXTS}),
    },
    required=("args", "cwd"),
)
"""The ``process`` object, which an exec has as well."""

MOUNT: Check = record(
    {
        "destination": word,
        "type": text,
        "source": text,
        "options": _TEXTS,
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
    },
    required=("destination",),
)

_HOOK = array(
    record(
        # The specification asks for an absolute path; runc and crun also take a relative one.
        {"path": word, "args": _TEXTS, "env": _ENVIRONMENT, "timeout": _INT64},
        required=("path",),
    )
)
_HOOKS = record(
    dict.fromkeys(
        (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ),
        _HOOK,
    )
)

_DEVICE = record(
    {
        "type": word,
        "path": absolute,
        "major": _INT64,
        "minor": _INT64,
        "fileMode": _UINT32,
        "uid": _ID,
        "gid": _ID,
    },
    required=("type", "path"),
)

_WEIGHT = {"major": _INT64, "minor": _INT64, "weight": _UINT32, "leafWeight": _UINT32}
_RATE = {"major": _INT64, "minor": _INT64, "rate": _UINT64}

_RESOURCES = record(
    {
        "devices": array(
            record(
                {
                    "allow": boolean,
                    "type": text,
                    "major": _INT64,
                    "minor": _INT64,
                    "access": text,
                }
            )
        ),
        "memory": record(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT64),
                "swappiness": _UINT64,
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), boolean),
            }
        ),
        "cpu": record(
            {
                **dict.fromkeys(("shares", "period", "realtimePeriod", "burst"), _UINT64),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT64),
                "cpus": text,
                "mems": text,
            }
        ),
        "pids": record({"limit": _INT64}),
        "blockIO": record(
            {
                "weight": _UINT32,
                "leafWeight": _UINT32,
                "weightDevice": array(record(_WEIGHT)),
                **dict.fromkeys(
                    (
                        "throttleReadBpsDevice",
                        "throttleWriteBpsDevice",
                        "throttleReadIOPSDevice",
                        "throttleWriteIOPSDevice",
                    ),
                    array(record(_RATE)),
                ),
            }
        ),
        "hugepageLimits": array(record({"pageSize": text, "limit": _UINT64})),
        "network": record(
            {
                "classID": _UINT32,
                "priorities": array(record({"name": text, "priority": _UINT32})),
            }
        ),
        "rdma": table(record({"hcaHandles": _UINT32, "hcaObjects": _UINT32})),
        "unified": table(text),
    }
)

_SECCOMP = record(
    {
        "defaultAction": text,
        "defaultErrnoRet": _UINT32,
        "architectures": _TEXTS,
        "flags": _TEXTS,
        "listenerPath": text,
        "listenerMetadata": text,
        "syscalls": array(
            record(
                {
                    "names": _TEXTS,
                    "action": word,
                    "errnoRet": _UINT32,
                    "args": array(
                        record(
                            {
                                "index": _UINT32,
                                "value": _UINT64,
                                "valueTwo": _UINT64,
                                "op": text,
                            }
                        )
                    ),
                },
                required=("names", "action"),
            )
        ),
    },
    required=("defaultAction",),
)

_ACTION = pattern(
    "SCMP_ACT_(ALLOW|ERRNO|KILL|KILL_PROCESS|KILL_THREAD|LOG|NOTIFY|TRACE|TRAP)",
    "an action such as SCMP_ACT_ERRNO",
)
_ARCHITECTURE = pattern("SCMP_ARCH_[A-Z0-9_]+", "an architecture such as SCMP_ARCH_X86_64")
_CONDITION = record(
    {
        "arches": _TEXTS,
        "caps": _TEXTS,
        "minKernel": pattern("[0-9]+\\.[0-9]+", 'a version of the kernel such as "4.8"'),
    }
)

SECCOMP: Check = record(
    {
        "defaultAction": _ACTION,
        "defaultErrnoRet": _UINT32,
        "architectures": array(_ARCHITECTURE),
        "archMap": array(
            record(
                {"architecture": _ARCHITECTURE, "subArchitectures": array(_ARCHITECTURE)},
                required=("architecture",),
            )
        ),
        "flags": _TEXTS,
        "listenerPath": text,
        "listenerMetadata": text,
        "syscalls": array(
            record(
                {
                    "names": array(word, least=1, empty="name the system calls"),
                    "action": _ACTION,
                    "errnoRet": _UINT32,
                    "args": array(
                        record(
                            {
                                "index": integer(0, 5),
                                "value": _UINT64,
                                "valueTwo": _UINT64,
                                "op": pattern(
                                    "SCMP_CMP_(NE|LT|LE|EQ|GE|GT|MASKED_EQ)",
                                    "a comparison such as SCMP_CMP_EQ",
                                ),
                            },
                            required=("index", "value", "op"),
                        )
                    ),
                    "includes": _CONDITION,
                    "excludes": _CONDITION,
                },
                required=("names", "action"),
            )
        ),
    },
    required=("defaultAction",),
)
"""A caller's profile, in OCI's form or docker's. Stricter than for a config.json, since a runtime
reports what it can't understand only when a container is made."""


def _absolute_or_empty(value: object, where: str) -> None:
    """Check for an absolute path, or the empty text, which Go programs use for *none*."""
    if value != "":
        absolute(value, where)


_NAMESPACES = array(record({"type": word, "path": _absolute_or_empty}, required=("type",)))


def _namespaces(value: object, where: str) -> None:
    """Check for namespaces, each type once."""
    _NAMESPACES(value, where)
    assert isinstance(value, list)
    seen = set()
    for index, entry in enumerate(value):
        if entry["type"] in seen:
            raise Fault(
                f"{where}[{index}]",
                f"names the {entry['type']} namespace a second time",
            )
        seen.add(entry["type"])


_LINUX = record(
    {
        "namespaces": _namespaces,
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
        "timeOffsets": table(record({"secs": _INT64, "nanosecs": _UINT32})),
        "devices": array(_DEVICE),
        "cgroupsPath": text,
        "resources": _RESOURCES,
        "intelRdt": record(
            {
                **dict.fromkeys(("closID", "l3CacheSchema", "memBwSchema"), text),
                "enableCMT": boolean,
                "enableMBM": boolean,
            }
        ),
        "sysctl": table(text),
        "seccomp": _SECCOMP,
        "rootfsPropagation": text,
        "maskedPaths": _TEXTS,
        "readonlyPaths": _TEXTS,
        "mountLabel": text,
        "personality": record({"domain": text, "flags": _TEXTS}),
    }
)

CONFIG: Check = record(
    {
        "ociVersion": text,  # each runtime itself says which ones it runs
        "process": PROCESS,
        "root": record({"path": word, "readonly": boolean}, required=("path",)),
        "hostname": text,
        "domainname": text,
        "mounts": array(MOUNT),
        "hooks": _HOOKS,
        "annotations": table(text),
        "linux": _LINUX,
    },
    required=("ociVersion", "process", "root", "linux"),
)
"""The whole document."""
