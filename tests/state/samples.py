"""One record of each kind, with something in every field."""

from __future__ import annotations

import signal
from typing import Any

import attrs

from supervisor.state import ContainerRecord, Intent, ProcessRecord, Result
from supervisor.values._status import Cause, ExitStatus, Source

CONTAINER = ContainerRecord(
    id="web-1",
    root="/var/lib/boxes",
    bundle="/srv/bundle",
    runtime="/usr/sbin/runc",
    runtime_args=("--systemd-cgroup",),
    runtime_root="/var/lib/boxes/.runtime",
    shim="/usr/lib/supervisor-shim",
    no_pivot_root=True,
    timeout_ns=10_000_000_000,
    created_ns=1_700_000_000_123_456_789,
    cgroup="/boxes/ab12-web-1",
    boot_id="6c3c2a1e-5f0d-4a53-9d0c-0d9e1f1f2a3b",
    labels={"app": "wéb"},
    restart={"policy": "on-failure", "max": 3, "backoff": 1.5},
    intent=Intent.STOP,
    stop_signal=10,
    stop_grace_ns=60_000_000_000,
    leash=True,
    extra={"later": [1, {"two": None}], "extra": 2**100},
)

PROCESS = ProcessRecord.from_process(
    {
        "terminal": True,
        "args": ["sh", "-c", "echo ünïcode"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/tmp",
        "user": {"uid": 1000, "gid": 1000},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2**64 - 1, "hard": 2**64 - 1}],
        "later": {"key": [1, 2]},
    },
    exec=True,
    root_uid=100000,
    root_gid=100001,
    checkpoint="/checkpoints/1",
    no_pivot_root=True,
    init_tells=True,
    runtime_args=["--debug"],
    root="/var/lib/boxes/.runtime",
    stdin="null",
    stdout="fifo:stdout",
    stderr="stdout",
)

RESULT = Result(
    status=ExitStatus(
        cause=Cause.SIGNALLED,
        source=Source.SHIM,
        signal=signal.SIGKILL,
        core_dumped=True,
        oom_killed=True,
        at_ns=1_700_000_000_123_456_789,
    ),
    oom_kills=3,
    extra={"later": "on"},
)

SAMPLES: tuple[ContainerRecord | ProcessRecord | Result, ...] = (
    CONTAINER,
    PROCESS,
    RESULT,
)


def container(**changes: Any) -> ContainerRecord:
    """Return `CONTAINER` with other values."""
    return attrs.evolve(CONTAINER, **changes)


def process(**changes: Any) -> ProcessRecord:
    """Return `PROCESS` with other values."""
    return attrs.evolve(PROCESS, **changes)
