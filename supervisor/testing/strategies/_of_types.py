"""The strategy of each of the library's types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from ...container import CheckpointOptions, Stopped
from ...running import Completed
from ...runtime import Runtime
from ...spec import Mount
from ...state import ContainerRecord, ProcessRecord, Result
from ...stdio import LogFile, LogRecord, TerminalSize
from ...values import Deadlines, ExitStatus
from ..machine import Operation
from ._given import (
    checkpoint_options,
    completions,
    deadlines,
    log_files,
    log_records,
    mounts,
    runtimes,
    stops,
    terminal_sizes,
)
from ._operations import operations
from ._records import container_records, exit_statuses, process_records, results

STRATEGIES: dict[type, Callable[[], st.SearchStrategy[Any]]] = {
    CheckpointOptions: checkpoint_options,
    Completed: completions,
    ContainerRecord: container_records,
    Deadlines: deadlines,
    ExitStatus: exit_statuses,
    LogFile: log_files,
    LogRecord: log_records,
    Mount: mounts,
    Operation: operations,
    ProcessRecord: process_records,
    Result: results,
    Runtime: runtimes,
    Stopped: stops,
    TerminalSize: terminal_sizes,
}
"""The strategy of each value: ``st.register_type_strategy(cls, make())`` for `st.from_type`."""
