"""A witness of one example or test: its containers, their output, and the time spent waiting."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from ..tasks import Change, ContainerReport

MAX_CONTAINERS: Final = 8
MAX_OUTPUT_BYTES: Final = 4096


@attrs.define(eq=False)
class Example:
    """A witness (`supervisor.tasks._observer`) for the time of one example, or of one test.

    Attributes:
        named: True: names are numbered in the order of the requests. False: names are random.
        worker: a name of this process, for directories that no other process uses.
        waited_seconds: how long the example waited for infrastructure.
        failed: whether the example ended with an error.
        with_specs: whether a container's report includes the spec, which is long.
    """

    named: bool = True
    worker: str = attrs.field(factory=lambda: worker_name())  # noqa: PLW0108  (defined below)
    waited_seconds: float = 0.0
    failed: bool = False
    with_specs: bool = True
    _names: int = 0
    _places: int = 0
    _reports: deque[ContainerReport] = attrs.field(factory=lambda: deque(maxlen=MAX_CONTAINERS))
    _outputs: dict[str, bytearray] = attrs.field(factory=dict)
    _waits: int = 0
    _waits_since: float = 0.0
    # A pool in one thread serves examples in another thread.
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def name_suffix(self) -> str:
        """Return 1, 2, 3, ..., or a random suffix."""
        if not self.named:
            return secrets.token_hex(4)
        with self._lock:
            self._names += 1
            return str(self._names)

    def place(self) -> str:
        """Return the worker's name with 1, 2, 3, ..., or with a random suffix."""
        if not self.named:
            return f"{self.worker}-{secrets.token_hex(8)}"
        with self._lock:
            self._places += 1
            return f"{self.worker}-{self._places}"

    def saw(self, report: ContainerReport) -> None:
        """Keep the report, and drop the oldest one."""
        with self._lock:
            if len(self._reports) == MAX_CONTAINERS:
                self._outputs.pop(self._reports[0].id, None)
            self._reports.append(report)

    def heard(self, container: str, content: bytes) -> None:
        """Keep the last bytes of a container's output, if the container's report is kept."""
        with self._lock:
            if all(report.id != container for report in self._reports):
                return
            tail = self._outputs.setdefault(container, bytearray())
            tail += content[-MAX_OUTPUT_BYTES:]
            del tail[:-MAX_OUTPUT_BYTES]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block's time; where blocks overlap, count the time once."""
        with self._lock:
            if self._waits == 0:
                self._waits_since = time.perf_counter()
            self._waits += 1
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1
                if self._waits == 0:
                    self.waited_seconds += time.perf_counter() - self._waits_since

    def told(self) -> list[tuple[str, str]]:
        """Return a title and a text for each container.

        Containers that didn't exit with 0 come first. In both groups the newest comes first: a
        reader most likely looks for that one.
        """
        with self._lock:
            seen = [(report, bytes(self._outputs.get(report.id, b""))) for report in self._reports]
        seen.reverse()
        seen.sort(key=lambda one: _is_fine(one[0]))
        return [
            (f"container {report.id}", tell(report, output, with_spec=self.with_specs))
            for report, output in seen
        ]


def worker_name() -> str:
    """Return a name that is unique on this machine: xdist's worker, and the pid."""
    return f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"


def _is_fine(report: ContainerReport) -> bool:
    status = report.status()
    return status is None or status.code == 0


def tell(report: ContainerReport, output: bytes, *, with_spec: bool) -> str:
    """Return what a failed test reports of a container."""
    status = report.status()
    parts = [
        f"args: {list(report.args)}",
        f"exit: {'has not ended' if status is None else status}",
        "history:",
        *_indented(tell_history(report.history())),
        f"output: {'none was read' if not output else ''}".rstrip(),
        *_indented(output.decode(errors="backslashreplace").splitlines()),
        *(["spec:", *_indented(_tell_spec(report.spec))] if with_spec else ["spec: with -v"]),
    ]
    return "\n".join(parts)


def tell_history(changes: Sequence[Change]) -> list[str]:
    """Return a line per change: the time since the first change, the event, the new state."""
    if not changes:
        return []
    first = changes[0]
    return [f"from {first.at:%H:%M:%S.%f} on"] + [
        f"{(change.at_ns - first.at_ns) / 1e6:+10.3f} ms  {change.event}: {change.state.value}"
        for change in changes
    ]


def _tell_spec(spec: bytes) -> list[str]:
    """Return a line per key: the spec is long enough."""
    try:
        keys = json.loads(spec)
    except ValueError:
        return ["the bundle was gone"]
    return [f"{key}: {json.dumps(value)}" for key, value in keys.items()]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
