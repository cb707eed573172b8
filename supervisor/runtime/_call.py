"""One call of the runtime, with a deadline; errors quote the runtime."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator

import trio

from ..children import PidFd, kill_others
from ..system import lifted
from ..tasks import in_thread, within
from ..values import (
    UNRUNNABLE,
    RuntimeFailed,
    RuntimeNotFound,
    RuntimeTimeout,
    ShimNotFound,
    raise_if_scarce,
)
from ._command import Call
from ._said import reason_at, reason_in

logger = logging.getLogger("supervisor")

_OUTPUT_BYTES = 16 << 20  # a state includes the annotations of the bundle
_LOG_BYTES = 128 * 1024
_REAP_SECONDS = 5.0
_PAST_HOOKS_SECONDS = 1.0
_LOOK_SECONDS = 0.05
# A tether that can't execute the runtime exits with this status and prints the error number.
_TETHERED_STATUS = 127
_TETHERED_ERRNO = re.compile(r"supervisor-tether: (\d+)")


async def run(
    call: Call,
    *,
    seconds: float,
    aloud: bool = False,
    done: Callable[[bytes], bool] | None = None,
    patience: Callable[[], float] = lambda: 0,
    past_hooks: Callable[[], bool] = lambda: False,
) -> bytes:
    """Make a call that makes no container process, and return its standard output.

    The runtime's output goes to files, not pipes: a hook that the runtime leaves behind may hold
    a pipe for ever, and files need no reader. With a log, stderr is appended to the log, and stdout
    is dropped; without a log, both are kept in memory.

    Args:
        call: the call.
        seconds: the deadline.
        aloud: whether the output is kept in memory though there is a log.
        done: tells whether the work is done, from the output or from the fact itself. Asked when
            another part of the program has reaped the call: the kernel may then not report the
            exit status. Without ``done``, such a call counts as failed.
        patience: tells how many seconds a cancelled or late call may still take before the call
            is killed.
        past_hooks: tells whether a late call may be waiting for a hook. If so, the hooks are
            killed first, since the runtime may do the rest of the work without them.

    Raises:
        RuntimeFailed: the call ended with an error.
        RuntimeTimeout: the call didn't end in time, and was killed with all its children.
        RuntimeNotFound: the runtime was removed, or can't be executed.
        ShimNotFound: the tether was removed, or can't be executed.
        TooManyFiles: no descriptor was left.
        TooManyProcesses: no process could be made.

    Cancellation: the runtime and all its children are killed before Cancelled is raised.
    """
    log = None if aloud else call.log
    with contextlib.ExitStack() as files:
        output = None if log else files.enter_context(_memory_file())
        errors = files.enter_context(_appending(log) if log else _memory_file())
        process = await _spawn(call, output, errors)
        try:
            ended = await _wait(process, seconds, patience)
            if not ended and past_hooks():
                ended = await _wait_past_hooks(process, call, seconds)
            status = await _reap(process)
        finally:
            process.close()
        if not ended:
            raise _timeout(call, seconds)
        content = b"" if output is None else _content(output)
        if status == 0 or (status is None and done is not None and done(content)):
            return content
        reason = reason_in(log) if log else reason_at(errors)
        if call.head.tether is not None and status == _TETHERED_STATUS:
            _raise_if_not_run(call, reason)
        raise failure(call, status, reason)


def fresh_log(path: str) -> str | None:
    """Make the empty file for a call's ``--log``, and return its path.

    Returns:
        None if the file can't be made. On a full disk, runtimes refuse to work with a log, and a
        start or a delete without a log is better than none.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # whatever the umask
        finally:
            os.close(fd)
    except OSError:
        return None
    return path


def failure(call: Call, status: int | None, reason: str) -> RuntimeFailed:
    """Return the error for a runtime's call that ended with ``status`` (-N: signal N)."""
    if status is None:
        how = (
            "ended with an unknown exit status (is SIGCHLD ignored, or does another part of the "
            "program reap child processes?)"
        )
    else:
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    said = f": {reason}" if reason else " and gave no reason"
    return RuntimeFailed(
        f"{call} {how}{said}",
        command=call.words,
        returncode=status,
        reason=reason,
        container=call.head.container,
    )


def _timeout(call: Call, seconds: float) -> RuntimeTimeout:
    return RuntimeTimeout(
        f"{call} took longer than {seconds:g} seconds and was killed",
        seconds=seconds,
        container=call.head.container,
    )


async def _spawn(call: Call, output: int | None, errors: int) -> PidFd:
    await trio.lowlevel.checkpoint_if_cancelled()
    command, program, tether = call.words, call.head.program(), call.head.tether
    inherit = [] if call.lock is None else [call.lock]
    if tether is not None:
        command = [tether, str(os.getpid()), str(-1 if program is None else program), *command]
        inherit, program = [*inherit, *([] if program is None else [program])], None
    try:
        return PidFd.spawn(command, output=output, errors=errors, inherit=inherit, program=program)
    except OSError as error:
        if tether is not None and error.errno in UNRUNNABLE:
            raise ShimNotFound(
                f"cannot run {tether} ({error.strerror}): reinstall trio-supervisor", path=tether
            ) from error
        raise _not_run(call, error) from error


async def _wait(process: PidFd, seconds: float, patience: Callable[[], float]) -> bool:
    """Wait until a call has ended; return whether the call ended in time.

    Cancellation: the call is killed, after ``patience``, with all its children.
    """
    try:
        with within(seconds):
            await process.wait_ended()
            return True
        with within(patience()):
            await process.wait_ended()
        return False
    except BaseException:
        with within(patience(), shield=True):
            await process.wait_ended()
        await _end(process)
        process.reap()
        raise


async def _wait_past_hooks(process: PidFd, call: Call, seconds: float) -> bool:
    """Kill the children that a late call waits for, repeatedly; return whether the call ends.

    A hook that fails after the container's end is a warning (OCI runtime spec, "Lifecycle").
    """
    try:
        with within(_PAST_HOOKS_SECONDS):
            while not process.ended():
                await in_thread(kill_others, process.pid, process.fd)
                with within(_LOOK_SECONDS):  # the next hook may hang, too
                    await process.wait_ended()
            logger.warning(
                "container %s: %s took longer than %g seconds: its hooks were killed",
                call.head.container,
                call,
                seconds,
            )
            return True
        return False
    except BaseException:
        await _end(process)
        process.reap()
        raise


async def _end(process: PidFd) -> None:
    """Kill a call and all its children: the hooks first, while they still are children."""
    if process.ended():
        return
    with within(_REAP_SECONDS, shield=True):
        await in_thread(kill_others, process.pid, process.fd)
    process.kill()
    # A SIGKILLed child ends, unless the child hangs in the kernel: then we don't wait.
    with within(_REAP_SECONDS, shield=True):
        await process.wait_ended()
        await in_thread(kill_others, process.pid, process.fd)


async def _reap(process: PidFd) -> int | None:
    """Return the exit status of a call, which is killed if alive; None if unknown."""
    await _end(process)
    status = process.reap()
    if status is None:  # reaped elsewhere in the program, or SIGCHLD is ignored
        told = process.wait_status()
        status = None if told is None else os.waitstatus_to_exitcode(told)
    return status


def _not_run(call: Call, error: OSError) -> Exception:
    """Return the error for a runtime that couldn't be started."""
    raise_if_scarce(error, spawning=True)
    if error.errno not in UNRUNNABLE:
        return error
    return RuntimeNotFound(
        f"cannot run the runtime {call.head.path} any more ({error.strerror})", name=call.head.path
    )


def _raise_if_not_run(call: Call, reason: str) -> None:
    """Raise the error that a tether has printed, if any."""
    told = _TETHERED_ERRNO.fullmatch(reason)
    if told is not None:
        number = int(told[1])
        raise _not_run(call, OSError(number, os.strerror(number)))


@contextlib.contextmanager
def _memory_file() -> Iterator[int]:
    try:
        fd = lifted(os.memfd_create("runtime-output", os.MFD_CLOEXEC))
    except OSError as error:
        raise_if_scarce(error)
        raise
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _appending(path: str) -> Iterator[int]:
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = lifted(os.open(path, flags | os.O_CLOEXEC))
    except OSError as error:
        raise_if_scarce(error)
        raise
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            if os.fstat(fd).st_size > _LOG_BYTES:
                os.ftruncate(fd, _LOG_BYTES)  # a hook may have printed a lot
        os.close(fd)


def _content(fd: int) -> bytes:
    """Return the end of a file, as a rule the whole file; a hook may have printed a lot."""
    size = os.fstat(fd).st_size
    return os.pread(fd, _OUTPUT_BYTES, max(0, size - _OUTPUT_BYTES))
