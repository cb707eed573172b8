"""Strategies: mounts, runtimes, deadlines, logs, checkpoint options and results."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from ...container import CheckpointOptions, Stopped
from ...running import Completed
from ...runtime import Runtime
from ...spec import Mount
from ...stdio import LogFile, LogRecord, TerminalSize
from ...values import (
    Deadlines,
)
from ._basic import absolute_paths, texts
from ._records import exit_statuses
from ._specs import arguments

_MAX_NS = 2**63 - 1


def mounts() -> st.SearchStrategy[Mount]:
    """Return mounts of paths that mostly aren't there."""
    return st.builds(Mount, absolute_paths(), absolute_paths(), read_only=st.booleans())


def runtimes() -> st.SearchStrategy[Runtime]:
    """Return runtimes that mostly aren't there."""
    return st.builds(
        Runtime,
        path=absolute_paths(),
        args=st.lists(texts(), max_size=3),
        root=st.none() | absolute_paths(),
        no_pivot=st.booleans(),
    )


def deadlines() -> st.SearchStrategy[Deadlines]:
    """Return deadlines."""
    seconds = st.floats(0, 3600, exclude_min=True, allow_subnormal=False)
    names = [field.name for field in attrs.fields(Deadlines)]
    return st.builds(Deadlines, **dict.fromkeys(names, seconds))


def terminal_sizes() -> st.SearchStrategy[TerminalSize]:
    """Return sizes of terminals."""
    return st.builds(TerminalSize, st.integers(1, 65535), st.integers(1, 65535))


def log_files() -> st.SearchStrategy[LogFile]:
    """Return bounds of logs."""
    return st.builds(LogFile, max_bytes=st.integers(32 * 1024, 1 << 60), files=st.integers(1, 1000))


def log_records() -> st.SearchStrategy[LogRecord]:
    """Return records of logs."""
    lines = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b""))
    streams = st.sampled_from(["stdout", "stderr"])
    return st.builds(LogRecord, st.integers(0, _MAX_NS), streams, st.booleans(), lines)


def checkpoint_options() -> st.SearchStrategy[CheckpointOptions]:
    """Return options of checkpoints."""
    flags = ("tcp_established", "external_unix_sockets", "shell_job", "file_locks")
    kept = st.sampled_from([(), ("network",)])
    told: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(flags, st.booleans())
    return st.builds(CheckpointOptions, **told, empty_namespaces=kept)


def stops() -> st.SearchStrategy[Stopped]:
    """Return results of `Container.stop`."""
    return st.builds(Stopped, status=exit_statuses(), escalated=st.booleans())


def completions() -> st.SearchStrategy[Completed]:
    """Return results of `run_container`."""
    output = st.none() | st.binary(max_size=20)
    return st.builds(
        Completed,
        args=arguments().map(tuple),
        status=exit_statuses(),
        stdout=output,
        stderr=output,
    )
