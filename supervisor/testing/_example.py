"""The witness of one example or test: the containers, their output, and the time of waits."""

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

from ..observers import HISTORY_LENGTH, Change, Changed, Ended, Made, Observation, Read
from ..state import INIT
from ..values import ExitStatus, State

MAX_CONTAINERS: Final = 8
MAX_OUTPUT_BYTES: Final = 4096


@attrs.define(eq=False)
class Seen:
    """What an example saw of one container.

    Attributes:
        made: what the container was made from.
        history: the last changes.
        status: the init's exit status, or None.
        output: the end of the output that was read.
        spec: the config.json.
    """

    made: Made
    history: deque[Change]
    spec: bytes
    status: ExitStatus | None = None
    output: bytearray = attrs.field(factory=bytearray)

    @classmethod
    def of(cls, made: Made) -> Seen:
        """Return what is seen of a container that was just made."""
        history = deque(made.history, maxlen=HISTORY_LENGTH)
        return cls(made, history, made.spec(), made.status)

    def observe(self, seen: Changed | Ended | Read) -> None:
        """Note what happens to the container."""
        if isinstance(seen, Changed):
            self.history.append(seen.change)
            if seen.change.state is State.DELETING:
                self._read(self.made.log())
        elif isinstance(seen, Read):
            self._read(seen.content)
        elif seen.process == INIT:
            self.status = seen.status

    def is_fine(self) -> bool:
        """Whether the init runs, or has exited with 0."""
        return self.status is None or self.status.code == 0

    def _read(self, content: bytes) -> None:
        self.output += content[-MAX_OUTPUT_BYTES:]
        del self.output[:-MAX_OUTPUT_BYTES]


@attrs.define(eq=False)
class Example:
    """A witness (`supervisor.observers`) for the time of one example, or of one test.

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
    _seen: deque[Seen] = attrs.field(factory=lambda: deque(maxlen=MAX_CONTAINERS))
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

    def observe(self, observation: Observation) -> None:
        """Note what happens to the last containers that were made."""
        if isinstance(observation, Made):
            seen = Seen.of(observation)
            with self._lock:
                self._seen.append(seen)
        elif isinstance(observation, Changed | Ended | Read):
            with self._lock:
                for seen in reversed(self._seen):  # an earlier one may have had the same id
                    if seen.made.container == observation.container:
                        seen.observe(observation)
                        return

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
            newest_first = [*reversed(self._seen)]
            return [
                (f"container {seen.made.container}", tell(seen, with_spec=self.with_specs))
                for seen in sorted(newest_first, key=Seen.is_fine)
            ]


def worker_name() -> str:
    """Return a name that is unique on this machine: xdist's worker, and the pid."""
    return f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"


def tell(seen: Seen, *, with_spec: bool) -> str:
    """Return what a failed test reports of a container."""
    status, output = seen.status, seen.output
    parts = [
        f"args: {list(seen.made.args)}",
        f"exit: {'has not ended' if status is None else status}",
        "history:",
        *_indented(tell_history(seen.history)),
        f"output: {'none was read' if not output else ''}".rstrip(),
        *_indented(output.decode(errors="backslashreplace").splitlines()),
        *(["spec:", *_indented(_tell_spec(seen.spec))] if with_spec else ["spec: with -v"]),
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
