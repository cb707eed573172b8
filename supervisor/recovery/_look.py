"""Look at the containers below a root without adopting one: no lock, no signal, nothing written."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

import attrs

from ..cgroups import Hierarchies
from ..directories import root_to_read
from ..process import Evidence, Finding, classify, find_process, load_process, lost
from ..shim import Shim
from ..state import (
    ContainerLayout,
    ContainerRecord,
    Intent,
    ProcessLayout,
    Result,
    RootLayout,
    load,
    read_asked,
    read_exit_status,
)
from ..system import boot_id, held
from ..tasks import in_thread
from ..values import ExitStatus, InfrastructureError, State, StateCorrupt, SupervisorError
from ._directories import load_record, strange


@attrs.frozen(kw_only=True)
class ProcessView:
    """A process as the disk and the kernel showed it.

    Attributes:
        id: ``"init"``, or the exec's id.
        args: the program and its arguments, at least one.
        env: its environment, ``NAME=value`` each.
        cwd: its working directory.
        pid: its pid on the host, if a process is alive that is certainly this one; else None.
        status: its exit status; None while it runs, and before its shim has reported it. One that
            isn't settled yet doesn't say whether memory had run out.
        evidence: what the status was concluded from, for people.
    """

    id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    pid: int | None
    status: ExitStatus | None
    evidence: str


@attrs.frozen(kw_only=True)
class ContainerView:
    """A container as the disk and the kernel showed it.

    Attributes:
        id: its id.
        path: its directory.
        state: its state. BROKEN if its directory can't be understood.
        supervised: whether a living supervisor held its lock.
        problem: why it is BROKEN, for people; else None.
        bundle: the path of its bundle; None if it is BROKEN, as the following.
        runtime: the path of its runtime.
        cgroup: its cgroup; None also if it has none of its own.
        created_ns: when it was created, CLOCK_REALTIME in nanoseconds.
        leash: whether it ends with its supervisor.
        labels: its labels.
        init: its first process; None also before there was one.
        execs: its further processes, by id.
    """

    id: str
    path: str
    state: State
    supervised: bool = False
    problem: str | None = None
    bundle: str | None = None
    runtime: str | None = None
    cgroup: str | None = None
    created_ns: int | None = None
    leash: bool | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    init: ProcessView | None = None
    execs: Mapping[str, ProcessView] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class _Machine:
    """What evidence is compared with."""

    boot_id: str
    hierarchies: Hierarchies


async def look(root: str | os.PathLike[str]) -> tuple[ContainerView, ...]:
    """Return the containers below a root, by id, whoever supervises them.

    Nothing is adopted, finished, written, signalled or reaped, and no runtime is called. Each
    container is looked at by itself, one after the other, in a thread: a container that changes
    meanwhile is shown as it was at one moment of the look. One that is deleted meanwhile is left
    out. Another supervisor's create or delete is shown as CREATING or DELETING, also if that
    supervisor was killed: then ``supervised`` is False.

    Args:
        root: the directory that was given to `open_supervisor`.

    Raises:
        InvalidValue: it is no directory, belongs to another user, or others may write to it.
        TooManyFiles: no descriptor was left.

    Cancellation: not before the thread has returned.
    """
    return await in_thread(_look, root)


def _look(root: str | os.PathLike[str]) -> tuple[ContainerView, ...]:
    real = root_to_read(root)
    machine = _Machine(boot_id=boot_id(), hierarchies=Hierarchies.discover())
    views = [_container(machine, real, layout) for layout in RootLayout(real).containers()]
    return tuple(view for view in views if view is not None)


def _container(machine: _Machine, root: str, layout: ContainerLayout) -> ContainerView | None:
    """Return one container; None if it has gone meanwhile."""
    try:
        problem = strange(layout)
        if problem is None:
            return _known(machine, load_record(root, layout), layout)
    except InfrastructureError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SupervisorError, OSError) as error:
        if not os.path.lexists(layout.path):
            return None
        problem = str(error)
    return ContainerView(id=layout.id, path=layout.path, state=State.BROKEN, problem=problem)


def _known(
    machine: _Machine, record: ContainerRecord, layout: ContainerLayout
) -> ContainerView | None:
    init, reported = _process(machine, record, layout.init)
    if not os.path.lexists(layout.state):
        return None
    execs = (
        _process(machine, record, process)[0]
        for process in layout.processes()
        if process.id != layout.init.id
    )
    return ContainerView(
        id=record.id,
        path=layout.path,
        state=_state(record, layout, init if reported else None),
        supervised=held(layout.lock),
        bundle=record.bundle,
        runtime=record.runtime,
        cgroup=record.cgroup,
        created_ns=record.created_ns,
        leash=record.leash,
        labels=dict(record.labels),
        init=init,
        execs={view.id: view for view in execs if view is not None},
    )


def _state(record: ContainerRecord, layout: ContainerLayout, init: ProcessView | None) -> State:
    """Return a container's state, by its record, its marks and its init, which was reported."""
    if record.intent is Intent.DELETE:
        return State.DELETING
    if init is None:
        return State.CREATING
    if init.status is not None:
        return State.STOPPED
    if not os.path.lexists(layout.init.started):
        return State.CREATED
    return State.STOPPING if _asked_to_stop(record, layout) else State.RUNNING


def _asked_to_stop(record: ContainerRecord, layout: ContainerLayout) -> bool:
    """Whether a stop is under way: on record as an intent, or asked for until a time to come."""
    with contextlib.suppress(StateCorrupt, OSError):
        asked = read_asked(layout.init.stopping)
        if asked is not None and time.clock_gettime_ns(time.CLOCK_BOOTTIME) < asked.until_ns:
            return True
    return record.intent is Intent.STOP


def _process(
    machine: _Machine, record: ContainerRecord, layout: ProcessLayout
) -> tuple[ProcessView | None, bool]:
    """Return one process, and whether its shim has reported it; None if there is no record yet."""
    try:
        process = load_process(layout)
    except FileNotFoundError:
        return None, False
    pid, finding, status = _look_closely(machine, record, layout)
    view = ProcessView(
        id=layout.id,
        args=process.args,
        env=process.env,
        cwd=process.cwd,
        pid=pid if status is None else None,
        status=status,
        evidence=finding.value,
    )
    return view, finding is not Finding.UNFINISHED


def _look_closely(
    machine: _Machine, record: ContainerRecord, layout: ProcessLayout
) -> tuple[int | None, Finding, ExitStatus | None]:
    """Return a process's pid, what its directory stands for, and its exit status.

    `gather`, for a supervisor, reads from ``exit``. This look would take from the fifo what the
    shim has written for the supervisor. It asks for the shim's lock instead, and after that for the
    exit status, which a shim records before it goes.
    """
    same_boot = record.boot_id == machine.boot_id
    result = None
    with contextlib.suppress(FileNotFoundError):
        result = load(Result, layout.result)
    with contextlib.ExitStack() as stack:
        shim = Shim.see(layout) if same_boot else Shim(layout, None)
        stack.callback(shim.close)
        process = find_process(machine, record, layout, shim) if same_boot else None
        if process is not None:
            stack.callback(process.close)
        watched = held(layout.shim)
        recorded = _recorded(layout)
        evidence = Evidence(
            settled=result is not None,
            watched=watched and recorded is None,
            reported=os.path.lexists(layout.starttime),
            alive=process is not None and recorded is None,
        )
        pid = None if process is None else process.pid
    finding = classify(evidence)
    if result is not None:
        return pid, finding, result.status
    if finding is Finding.ENDED:
        return pid, finding, recorded or lost(same_boot=same_boot)
    return pid, finding, None


def _recorded(layout: ProcessLayout) -> ExitStatus | None:
    with contextlib.suppress(StateCorrupt):
        return read_exit_status(layout.exit_status)
    return None
