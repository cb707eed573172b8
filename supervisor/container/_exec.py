"""Exec: run a further process in a running container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from ..bundle import check_args, exec_process
from ..children import PidFd
from ..observers import name_suffix
from ..process import (
    Finding,
    ProcessTask,
    gather,
    look_on_process,
    run_process,
    watch_process,
)
from ..rootfs import Account, find_account
from ..runtime import fresh_log
from ..spec import attainable, check_attainable
from ..state import ProcessLayout, ProcessRecord, check_exec_id, load, process_object, read_pid
from ..stdio import (
    Stdio,
    StdioArgument,
    TerminalArgument,
    attached_pair,
    console,
    opened,
    plan,
)
from ..system import Lock, held
from ..tasks import shielded
from ..values import (
    Event,
    GateFailed,
    IllegalTransition,
    InvalidValue,
    ProcessState,
    RuntimeFailed,
    State,
    StateCorrupt,
    SupervisorError,
    TooManyFiles,
    check_flag,
    happened_to,
)
from ._core import Core
from ._delete import end_left
from ._directories import make_exec
from ._plan import shim_lost
from ._removal import remove_directory
from ._unrun import ask_root, raise_refused, require_run, root_of


async def exec(
    core: Core,
    args: Sequence[str],
    *,
    id: str | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    account: Account,
    stdin: StdioArgument,
    stdout: StdioArgument,
    stderr: StdioArgument,
    terminal: TerminalArgument,
    attach: bool,
) -> ProcessTask:
    """Run a further program; see `Container.exec`."""
    if check_flag(attach, "attach") and terminal is False:
        raise InvalidValue("attach=True needs a terminal: terminal=True", container=core.record.id)
    core.shared.require_open(core.record.id)
    core.check(Event.EXEC)
    _require_thawed(core)
    layout = core.layout.process(f"exec-{name_suffix()}" if id is None else check_exec_id(id))
    check_args(args)
    stdio = plan(layout, stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal)
    shim_lost(core.record.on_shim_lost.value, stdio)
    user = await _user_of(core, account)
    record = _record(core, stdio, args=args, env=env, cwd=cwd, user=user)
    with (
        happened_to(core.record.id),
        opened(stdio, core.shared.null) as ready,
        core.operating(),
    ):
        try:
            process = await _launch(core, layout, record, ready, attach=attach)
        except RuntimeFailed as error:
            if core.init.end.has_come():
                raise _ended_meanwhile(core) from error
            await raise_refused(error, core, process_object(record))
            raise
    await _require_run(core, process)
    return process


async def _user_of(core: Core, account: Account) -> dict[str, Any] | None:
    """Return the container's user for an account; None if the account says nothing.

    A file system that never answers may be mounted over the container's lists of users and groups.
    So the look-up has a deadline.

    Raises:
        InvalidValue: a name can't be looked up in the container.
    """
    if not account.says_anything:
        return None
    before = core.init.record.extra.get("user")
    if not account.needs_lists:
        return find_account(account, "", before=before)
    told = await ask_root(
        core, lambda path: find_account(account, path, before=before, shown="the container's /")
    )
    if told is None:
        raise InvalidValue(
            "user: the container's lists of users and groups can't be read: give uid, gid and "
            "extra_groups as numbers",
            container=core.record.id,
        )
    core.check(Event.EXEC)
    return told


async def _require_run(core: Core, process: ProcessTask) -> None:
    """If the kernel has refused the program, abandon the exec and raise the reason.

    This takes no time if the program runs, and a moment if not: so it is shielded.
    """
    try:
        with root_of(core) as root, shielded(core.shared.deadlines.call):
            await require_run(core, process, root)
    except GateFailed:
        process.streams.abandon()
        process.abandon()
        with shielded(core.shared.deadlines.shim):
            await process.life.wait_gone()
        raise


async def _launch(
    core: Core, layout: ProcessLayout, record: ProcessRecord, stdio: Stdio, *, attach: bool
) -> ProcessTask:
    lock = make_exec(
        layout, record, stdio, container=core.record.id, observers=core.shared.observers
    )
    process = core.new_process(layout, record, lock=lock)
    try:
        fresh_log(layout.log("exec"))
        with (
            attached_pair(attach) as (connected, fd),
            console(layout, stdio, attached_fd=fd) as listening,
        ):
            call = core.runtime.exec(
                process=layout.record,
                pid_file=layout.pid,
                console_socket=None if listening is None else listening.path,
                log=layout.log("exec"),
            )
            await core.nursery.start(
                _keep,
                core,
                process,
                partial(run_process, process, call, stdio, listening),
                name=process.task_name,
            )
            if connected is not None:
                process.terminal.begin(connected)
        process.log.note()
    except BaseException:
        try:
            await discard_exec(core, layout)
        finally:
            lock.release()  # the task does, if it began
        raise
    return process


def _require_thawed(core: Core) -> None:
    """Refuse an exec in a frozen container: runtime and program would freeze on entering.

    Raises:
        IllegalTransition: the container is frozen.
    """
    cgroup = core.record.cgroup
    if cgroup is not None and core.shared.hierarchies.frozen(cgroup):
        raise IllegalTransition(
            "cannot exec: the container is frozen (paused); thaw it first, for instance with "
            f"`{os.path.basename(core.record.runtime)} resume`",
            state=core.state.value,
            event=Event.EXEC.value,
            container=core.record.id,
        )


def _ended_meanwhile(core: Core) -> IllegalTransition:
    """Return the error for an exec in a container that ended; runtimes word this badly."""
    return IllegalTransition(
        "cannot exec: the container ended while the program was being started",
        state=core.state.value,
        event=Event.EXEC.value,
        container=core.record.id,
    )


async def discard_exec(core: Core, layout: ProcessLayout) -> None:
    """Remove what an exec with a failed launch has left."""
    await end_unreported(core, layout)
    remove_directory(layout.path)


async def end_unreported(core: Core, layout: ProcessLayout) -> None:
    """Kill the program of a failed exec, in case the shim was killed before doing that.

    If we are a subreaper, the kernel has passed that program on to us. Then we also reap the
    program: otherwise init couldn't end.
    """
    if core.shared.opener.elsewhere():
        return
    _kill_unreported(core, layout)
    with shielded(core.shared.deadlines.kill):
        await core.shared.wards.end(layout.path)
        await end_left(core.shared, layout)


def _kill_unreported(core: Core, layout: ProcessLayout) -> None:
    """Kill the program, if the pid is certain.

    The pid in the file proves nothing by itself. So only a process in the container's own cgroup,
    and never the init, is killed.
    """
    with contextlib.suppress(StateCorrupt, TooManyFiles):
        pid = read_pid(layout.pid)
        process = None if pid is None else PidFd.open(pid)
        if process is None:
            return
        cgroup = core.record.cgroup
        strange = cgroup is None or not core.shared.hierarchies.holds(cgroup, process.pid)
        if not strange and process.pid != core.init.pid:
            process.kill()
            core.shared.wards.keep(layout.path, process)
            return
        process.close()


def adopt_exec(core: Core, process: ProcessTask) -> None:
    """Watch an exec that another supervisor made."""
    process.log.note()
    core.execs[process.id] = process
    core.nursery.start_soon(
        _keep, core, process, partial(watch_process, process), name=process.task_name
    )


def look_for_execs(core: Core) -> None:
    """Watch new execs of other supervisors, and forget the execs that those have removed."""
    shared = core.shared
    if shared.life.closing or shared.opener.elsewhere():
        return
    if core.refresh() not in (State.RUNNING, State.STOPPING):
        return
    there = {layout.id: layout for layout in core.layout.processes()}
    for process in core.execs.values():
        if process.status is not None and process.id not in there:
            process.abandon()
    for id in there.keys() - core.execs.keys() - {core.init.id}:
        with contextlib.suppress(SupervisorError, OSError):  # the exec is being made or removed
            _look_on(core, there[id])


def _look_on(core: Core, layout: ProcessLayout) -> None:
    if not held(layout.lock):  # without an owner: `Supervisor.adopt` adopts the exec
        return
    process = core.new_process(layout, load(ProcessRecord, layout.record))
    found = gather(core.shared, core.record, layout)
    if found.finding is not Finding.RUNNING:
        found.close()
        return
    look_on_process(process, found)
    adopt_exec(core, process)


@trio.lowlevel.enable_ki_protection
async def _keep(
    core: Core,
    process: ProcessTask,
    work: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a process among the container's execs until a caller knows how the process ended.

    This is the one task of an exec, and removes the exec's directory. ``work`` launches and watches
    the process, or only watches it.
    """
    core.execs[process.id] = process
    try:
        await work(task_status=task_status)
        await process.collected.wait()
        if process.life.state is not ProcessState.LEFT:  # else the next owner removes it
            _remove(core, process)
    finally:
        core.execs.pop(process.id, None)
        process.forget()


def _remove(core: Core, process: ProcessTask) -> None:
    """Remove the directory of an exec that is ours, or became ours together with the container."""
    path = process.layout.path
    if process.lock is not None:
        remove_directory(path)
    elif core.lock is not None:  # found as another supervisor's
        with contextlib.suppress(FileNotFoundError, StateCorrupt):
            freed = Lock.take(process.layout.lock)
            if freed is not None:
                with freed:
                    remove_directory(path)


def _record(
    core: Core,
    stdio: Stdio,
    *,
    args: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: Mapping[str, Any] | None,
) -> ProcessRecord:
    init = core.init.record
    size = stdio.terminal
    process = attainable(
        exec_process(
            process_object(init),
            args=args,
            env=env,
            cwd=cwd,
            user=user,
            terminal=None if size is None else (size.columns, size.rows),
        )
    )
    check_attainable(process)
    return ProcessRecord.from_process(
        process,
        exec=True,
        root_uid=init.root_uid,
        root_gid=init.root_gid,
        no_pivot_root=init.no_pivot_root,
        runtime_args=init.runtime_args,
        root=init.root,
        **stdio.on_record,
    )
