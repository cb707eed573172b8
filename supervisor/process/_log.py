"""Tell a process's own log from the log of a later process with the same id."""

from __future__ import annotations

from collections.abc import Callable

from ..state import ProcessLayout
from ..stdio import LogIndex


class OutputLog:
    """The log of one process, known by the name in its index."""

    def __init__(self, layout: ProcessLayout, *, has_container: Callable[[], bool]) -> None:
        self._layout = layout
        self._has_container = has_container
        self._name: str | None = None  # set by `note`; None for a process without an index

    def note(self) -> None:
        """Note which log is the process's own."""
        index = LogIndex.read(self._layout.log_index)
        self._name = None if index is None else index.name

    def is_there(self) -> bool:
        """Whether the process's container is there, and the log is still the process's own."""
        if self._name is None or not self._has_container():
            return self._has_container()
        index = LogIndex.read(self._layout.log_index)
        return index is not None and index.name == self._name
