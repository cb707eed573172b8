"""Views of the containers below a root: nothing is adopted, locked, signalled or written."""

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
    read_shim,
)
from ..system import boot_id, held
from ..tasks import in_thread
from ..values import ExitStatus, InfrastructureError, State, StateCorrupt, SupervisorError
from ._directories import load_record, strange


@attrs.frozen(kw_only=True)
class ProcessView:
    """A process, as seen on disk and in the kernel.

    Attributes:
        id: ``"init"``, or the exec's id.
        args: the program and the program's arguments, at least one.
        env: the environment, ``NAME=value`` each.
        cwd: the working directory.
        pid: the pid on the host, if a living process is certainly this one; else None.
        status: the exit status; None while the process runs, and before the shim has reported the
            process. A status that isn't settled yet doesn't say whether memory had run out.
        evidence: the facts from which the status was concluded, for people.
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
    """A container, as seen on disk and in the kernel.

    A BROKEN container has only ``id``, ``path``, ``state`` and ``problem``.

    Attributes:
        id: the container's id.
        path: the container's directory.
        state: the state; BROKEN if the directory can't be understood.
        supervised: whether a living supervisor held the container's lock.
        problem: why the container is BROKEN, for people; else None.
        bundle: the path of the user's bundle.
        runtime: the path of the runtime.
        cgroup: the container's cgroup; None if the container has no cgroup of its own.
        created_ns: the time of the create, CLOCK_REALTIME in nanoseconds.
        leash: whether the container dies with the supervisor.
        labels: the labels.
        init: the first process; None before there is one.
        execs: the further processes, by id.
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
    """The machine's facts with which evidence is compared."""

    boot_id: str
    hierarchies: Hierarchies


async def look(root: str | os.PathLike[str]) -> tuple[ContainerView, ...]:
    """Return the containers below a root, by id, with any owner or none.

    Nothing is adopted, finished, written, signalled or reaped, and no runtime is called. A thread
    looks at the containers one after the other: a container that changes meanwhile is shown as at
    one moment of the look. A container that is deleted meanwhile is left out, and so is an exec
    that can't be understood. Another supervisor's create or delete is shown as CREATING or
    DELETING, also if that supervisor was killed: then ``supervised`` is False.

    Args:
        root: the directory that was given to `open_supervisor`.

    Raises:
        InvalidValue: the root is no directory, belongs to another user, or others may write there.
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
    """Return the view of one container; None if the container was deleted meanwhile."""
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
    execs = [
        _exec(machine, record, process)
        for process in layout.processes()
        if process.id != layout.init.id
    ]
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


def _exec(machine: _Machine, record: ContainerRecord, layout: ProcessLayout) -> ProcessView | None:
    """Return the view of one exec; None if the exec is gone, or can't be understood.

    As in an adoption, a bad exec is set aside, and the container stays.
    """
    try:
        return _process(machine, record, layout)[0]
    except InfrastructureError:
        raise
    except (StateCorrupt, OSError):
        return None


def _state(record: ContainerRecord, layout: ContainerLayout, init: ProcessView | None) -> State:
    """Return a container's state, from the record, the marks and the init, if reported."""
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
    """Whether a stop is running: the record's intent is STOP, or the asked grace isn't over."""
    with contextlib.suppress(StateCorrupt, OSError):
        asked = read_asked(layout.init.stopping)
        if asked is not None and time.clock_gettime_ns(time.CLOCK_BOOTTIME) < asked.until_ns:
            return True
    return record.intent is Intent.STOP


def _process(
    machine: _Machine, record: ContainerRecord, layout: ProcessLayout
) -> tuple[ProcessView | None, bool]:
    """Return one process, and whether the shim has reported the process; None without a record."""
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
    """Return a process's pid, the finding about the process's directory, and the exit status.

    A supervisor's `gather` reads from the fifo ``exit``. A read here would steal the bytes that
    the shim has written for the supervisor. So this function looks at the shim's lock instead, and
    then at the exit status, which a shim records before the shim exits.

    Raises:
        StateCorrupt: what is there can't be understood.
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
        if recorded is None:
            read_shim(layout.shim)  # a spoilt file says nothing of the shim: it may be alive
        return pid, finding, recorded or lost(same_boot=same_boot)
    return pid, finding, None


def _recorded(layout: ProcessLayout) -> ExitStatus | None:
    with contextlib.suppress(StateCorrupt):
        return read_exit_status(layout.exit_status)
    return None
