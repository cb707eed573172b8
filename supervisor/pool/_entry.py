"""One container of a pool, which waits at a start gate, and the request that a taker sends."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypedDict

import attrs
import trio

from .._supervisor import Supervisor
from ..bundle import (
    Bundle,
    FileContent,
    Gate,
    check_absolute,
    check_args,
    check_env,
    frame,
    init_process,
)
from ..container import Container, core_of, show
from ..observers import Ended
from ..spec import is_ours, telling
from ..stdio import PIPE, StdioArgument
from ..tasks import protected, within
from ..values import (
    Cause,
    ExitStatus,
    GateFailed,
    IllegalTransition,
    InvalidValue,
    RuntimeTimeout,
    ShimExited,
    Source,
    not_run,
    raise_if_scarce,
)

PoolInput = bytes | bytearray | memoryview | int | None

_REPORT_BYTES: Final = 4096
_GO: Final = b"go\n"

_PHRASES: Final = {
    "program": "the program {name} can't be run",
    "cwd": "cannot enter the working directory {name}",
    "file": "the file {name} can't be written",
}


class TakeOptions(TypedDict, total=False):
    """What a taker can set for a container of a pool.

    Attributes:
        env: variables that are added to the bundle's, or replace them.
        cwd: the working directory, an absolute path inside the container. The directory must
            exist there, or be made by ``files``.
        stdin: bytes for the program's input, which then ends; no bytes by default. With PIPE the
            taker writes to ``box.stdin``.
        files: files that the container's user writes inside before the program runs. The keys are
            absolute paths; the values are bytes, or bytes and a mode (default 0644). Missing
            directories on the way are made.
    """

    env: Mapping[str, str] | None
    cwd: str | None
    stdin: PoolInput
    files: Mapping[str, FileContent] | None


@attrs.frozen(kw_only=True)
class PoolRequest:
    """The checked request of one taker.

    Attributes:
        process: the process object that the gate becomes.
        frame: the message to the gate.
        input: the program's input; None if the taker writes the input.
    """

    process: Mapping[str, Any]
    frame: bytes
    input: memoryview | None


def pool_request(
    spec: Mapping[str, Any], args: Sequence[str] | None, options: TakeOptions
) -> PoolRequest:
    """Check a taker's request, without touching any container.

    Args:
        spec: the bundle's config.json.
        args: the program and the program's arguments, in place of the bundle's.
        options: the rest of the request.

    Raises:
        InvalidValue: the request can't be fulfilled.
    """
    cwd = options.get("cwd")
    variables = check_env(options.get("env"))
    directory = None if cwd is None else check_absolute(cwd, "cwd")
    wanted = init_process(
        spec["process"],
        args=None if args is None else check_args(args),
        env=variables,
        cwd=directory,
        terminal=None,
    )
    behind = is_ours(spec)
    told = frame(
        args=telling(wanted["args"], gated=True) if behind else wanted["args"],
        env=variables,
        cwd=directory,
        files=options.get("files"),
        hand_on=behind,
    )
    return PoolRequest(process=wanted, frame=told, input=_input(options.get("stdin", b"")))


def _input(stdin: object) -> memoryview | None:
    if isinstance(stdin, bytes | bytearray | memoryview):
        return memoryview(bytes(stdin))
    if stdin is None:
        return memoryview(b"")
    if isinstance(stdin, int) and not isinstance(stdin, bool) and stdin == PIPE:
        return None
    raise InvalidValue(
        f"stdin must be bytes, None or PIPE, not {stdin!r}: the kind of stdin is fixed when a "
        "pooled container is created"
    )


@protected
class Entry:
    """A container that was created with a gate, and the pipe with the gate's report.

    Attributes:
        box: the container.
        rest: after the start, the part of the taker's input that isn't sent yet.
        made_in: the stock's round in which the container was made.
    """

    def __init__(self, box: Container, report_fd: int) -> None:
        self.box = box
        self._core = core_of(box)
        self.rest = memoryview(b"")
        self.made_in = 0
        self._report_fd = report_fd
        self._watch = contextlib.ExitStack()

    @classmethod
    async def make(
        cls,
        supervisor: Supervisor,
        bundle: Bundle,
        *,
        id: str,
        gate: str,
        stdout: StdioArgument,
        stderr: StdioArgument,
        labels: Mapping[str, str],
        privileges: Mapping[str, Any] = MappingProxyType({}),
    ) -> Entry:
        """Create a container that waits to be started.

        Args:
            privileges: further arguments for `Supervisor.create`.

        Raises: as `Supervisor.create`.

        Cancellation: as there.
        """
        try:
            report_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise_if_scarce(error, container=id)
            raise
        try:
            box = await supervisor.create(
                id,
                bundle,
                stdin=PIPE,
                stdout=stdout,
                stderr=stderr,
                labels=labels,
                gate=Gate(gate, write_fd),
                **privileges,
            )
        except BaseException:
            os.close(report_fd)
            raise
        finally:
            os.close(write_fd)
        return cls(box, report_fd)

    def alive(self) -> bool:
        """Whether the container can still be started, as far as one look shows."""
        return self._core.init.handles.watched()

    def watch(self, died: Callable[[Entry, ExitStatus], None]) -> None:
        """Call ``died`` when the container's init ends, or at once if the init has ended."""

        def note(ended: Ended) -> None:
            if ended.process == self._core.init.id:
                died(self, ended.status)

        self._watch.enter_context(self._core.observers.observing(Ended, note))

    def unwatch(self) -> None:
        """Stop the watch."""
        self._watch.close()

    async def start(self, wanted: PoolRequest) -> None:
        """Start the container, and return when the program runs.

        As much of the request as stdin takes at once is sent before the start, so that the gate
        needn't wait.

        Raises:
            GateFailed: the container couldn't be made to run that program.
            ShimExited: the container was killed before the program ran.
            All that `Container.start` raises.

        Cancellation: the caller must delete the container.
        """
        frame = self._send(memoryview(wanted.frame))
        self.rest = memoryview(b"") if wanted.input is None else wanted.input
        if not frame:
            self.rest = self._send(self.rest)
        if not frame and not self.rest and wanted.input is not None:
            self._end_input()
        self._core.init.gate.become(wanted.process)
        try:
            await self.box.start()
        except IllegalTransition:  # the container was killed after the last look
            await self._raise_killed()
        await self._pass_gate(frame)
        show(self._core)
        if frame and wanted.input is not None and not self.rest:
            self._end_input()

    def _send(self, data: memoryview) -> memoryview:
        """Write to stdin without waiting; return the part that didn't fit."""
        if data and self.box.init.stdin is not None:
            with contextlib.suppress(trio.BrokenResourceError):  # init is dead: start reports it
                return data[self.box.init.stdin.send_nowait(data) :]
        return data

    def _end_input(self) -> None:
        if self.box.init.stdin is not None:
            self.box.init.stdin.close()

    async def _pass_gate(self, frame: memoryview) -> None:
        seconds = self._core.shared.deadlines.start
        with within(seconds):
            if frame and self.box.stdin is not None:
                with contextlib.suppress(trio.BrokenResourceError):  # the report gives the reason
                    await self.box.stdin.send_all(frame)
            await self._check(await self._read_report())
            await self._check_shim()
            return
        raise RuntimeTimeout(
            f"the gate didn't run the program within {seconds:g} seconds",
            seconds=seconds,
            container=self.box.id,
        )

    async def _read_report(self) -> bytes:
        """Return the gate's report. The report ends when the gate executes the program, or dies."""
        heard = b""
        while len(heard) < _REPORT_BYTES:
            try:
                chunk = os.read(self._report_fd, _REPORT_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._report_fd)
                continue
            if not chunk:
                break
            heard += chunk
        self._close_report()
        return heard

    async def _check(self, heard: bytes) -> None:
        if heard == _GO:
            return
        if not heard:
            await self._raise_killed()
        what, _, rest = heard.removeprefix(_GO).decode(errors="replace").partition(" ")
        number, _, name = rest.partition(" ")
        code = int(number) if number.isdecimal() else 0
        said = _PHRASES.get(what, "the gate couldn't read the request: {name}")
        reason = "" if what == "frame" and code == errno.EBADMSG else f": {os.strerror(code)}"
        raise not_run(
            said.format(name=name) + reason,
            what=what,
            number=code,
            name=name,
            container=self.box.id,
        )

    async def _check_shim(self) -> None:
        """Check that the shim is alive: it may have been killed while the container waited.

        No caller has the program yet, so another container can still run the program.
        """
        if self._core.init.handles.watched():
            return
        status = await self.box.wait()  # usually the shim lived, and the program was quick
        if status.source is not Source.SHIM:
            raise ShimExited(
                f"the shim ended just after the start: {status}", container=self.box.id
            )

    async def _raise_killed(self) -> None:
        """Raise the error for a container that was killed before the program ran.

        The kernel kills the gate if the taker's files don't fit into the memory limit.
        """
        status = await self.box.wait()
        if status.cause is not Cause.OUT_OF_MEMORY:
            raise ShimExited(
                f"the container was killed before the program ran: {status}",
                container=self.box.id,
            )
        raise GateFailed(
            "the container was killed: the files don't fit into the memory limit",
            what="killed",
            errno=errno.ENOMEM,
            name="",
            container=self.box.id,
        )

    async def delete(self) -> None:
        """Kill the container if it is alive, and remove it.

        Raises:
            CleanupIncomplete: the container couldn't be removed in time.

        Cancellation: as `Container.delete`.
        """
        self.unwatch()
        self._close_report()
        await self.box.delete(force=True)

    def _close_report(self) -> None:
        if self._report_fd >= 0:
            trio.lowlevel.notify_closing(self._report_fd)
            os.close(self._report_fd)
        self._report_fd = -1
