"""Find out from disk and kernel what a process of another supervisor is doing.

`gather` collects the evidence. `classify` is a pure function from evidence to finding.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from typing import Protocol

import attrs

from ..cgroups import Hierarchies
from ..children import PidFd
from ..shim import ExitFifo, Shim, send_line, signal_line
from ..state import (
    ContainerRecord,
    ProcessLayout,
    ProcessRecord,
    Result,
    load,
    read_pid,
    read_starttime,
)
from ..system import HIDDEN, is_child, look_at
from ..values import ExitStatus, StateCorrupt, unknown


class Machine(Protocol):
    """The boot and the cgroups to compare evidence with: a supervisor's, or those of one look."""

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        ...

    @property
    def hierarchies(self) -> Hierarchies:
        """The mounted cgroup hierarchies."""
        ...


class Finding(enum.Enum):
    """What a process directory stands for."""

    SETTLED = "the result is final"
    RUNNING = "the shim watches the process"
    UNFINISHED = "the creation was never finished"
    ORPHAN = "the process is alive and the shim is dead"
    ENDED = "the process has ended, recorded or not"


@attrs.frozen(kw_only=True)
class Evidence:
    """What was found.

    Attributes:
        settled: there is a ``result.json``.
        watched: a shim holds ``exit`` open.
        reported: the shim has written ``starttime``.
        alive: the recorded process is alive: pid, start time, boot and descent match.
    """

    settled: bool
    watched: bool
    reported: bool
    alive: bool


def classify(evidence: Evidence) -> Finding:
    """Return what the evidence means."""
    if evidence.settled:
        return Finding.SETTLED
    if not evidence.reported:
        return Finding.UNFINISHED
    if evidence.watched:
        return Finding.RUNNING
    return Finding.ORPHAN if evidence.alive else Finding.ENDED


@attrs.define(kw_only=True)
class Found:
    """What a look at a process directory found; owns the descriptors until they are handed on.

    Attributes:
        finding: what the directory stands for.
        status: the settled status, or None.
        oom_kills: how many out-of-memory kills were counted until the settling.
        exit: the ``exit`` fifo, or None if there is none.
        shim: the shim, running or gone.
        process: the process, if the pid is certain and the process alive.
        lost: the status to use if the process has ended and the shim recorded none.
    """

    finding: Finding
    status: ExitStatus | None
    oom_kills: int
    exit: ExitFifo | None
    shim: Shim
    process: PidFd | None
    lost: ExitStatus

    def close(self) -> None:
        """Close the descriptors."""
        for part in (self.exit, self.shim, self.process):
            if part is not None:
                part.close()


def load_process(layout: ProcessLayout) -> ProcessRecord:
    """Return a process's record: ``program.json`` of a taken pooled container, or ``process.json``.

    Raises:
        FileNotFoundError: the process was never made.
        StateCorrupt: the record can't be understood.
    """
    record = load(ProcessRecord, layout.record)
    with contextlib.suppress(FileNotFoundError):
        record = load(ProcessRecord, layout.program)
    return record


def gather(machine: Machine, record: ContainerRecord, layout: ProcessLayout) -> Found:
    """Look at a process directory.

    ``exit`` comes first: a shim records the exit status before closing the fifo, so after the
    close the record is final. Files that can't be understood count as missing: a pid is believed
    only if all files agree.

    Raises:
        StateCorrupt: ``result.json`` can't be understood, or the file ``exit`` is no fifo.
        TooManyFiles: no descriptor was left.
    """
    result = None
    with contextlib.suppress(FileNotFoundError):
        result = load(Result, layout.result)
    same_boot = record.boot_id == machine.boot_id
    with contextlib.ExitStack() as undo:
        exit = None
        with contextlib.suppress(FileNotFoundError):
            exit = ExitFifo(layout.exit)
            undo.callback(exit.close)
        shim = Shim.adopt(layout) if same_boot else Shim(layout, None)
        undo.callback(shim.close)
        process = find_process(machine, record, layout, shim) if same_boot else None
        undo.pop_all()
    evidence = Evidence(
        settled=result is not None,
        watched=exit is not None and exit.watched(),
        reported=os.path.lexists(layout.starttime),  # a link that leads nowhere was once a file
        alive=process is not None,
    )
    return Found(
        finding=classify(evidence),
        status=None if result is None else result.status,
        oom_kills=0 if result is None else result.oom_kills,
        exit=exit,
        shim=shim,
        process=process,
        lost=lost(same_boot=same_boot),
    )


def kill_found(machine: Machine, record: ContainerRecord, layout: ProcessLayout) -> None:
    """Kill the process of a directory, whatever else is in there.

    If the pid is certain, kill the process directly; otherwise ask the shim that reads ``control``.

    Raises:
        TooManyFiles: no descriptor was left.
    """
    process = None
    if record.boot_id == machine.boot_id:
        with contextlib.closing(Shim.adopt(layout)) as shim:
            process = find_process(machine, record, layout, shim)
    if process is not None:
        with contextlib.closing(process):
            process.kill()
        return
    with contextlib.suppress(OSError):  # perhaps no shim reads it
        send_line(layout.control, signal_line(signal.SIGKILL))


def lost(*, same_boot: bool) -> ExitStatus:
    """Return the exit status for a process that is gone and has no recorded status."""
    if not same_boot:
        return unknown("the machine was restarted, and no exit status was recorded before")
    return unknown("shim and process are gone, and no exit status was recorded")


def find_process(
    machine: Machine, record: ContainerRecord, layout: ProcessLayout, shim: Shim
) -> PidFd | None:
    """Return the recorded process, held by a descriptor; None unless all the evidence agrees."""
    try:
        pid, start_time = read_pid(layout.pid), read_starttime(layout.starttime)
    except StateCorrupt:
        return None
    if pid is None or start_time is None:
        return None
    process = PidFd.open(pid)
    if process is None:
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(process.close)
        if not _is_it(machine, record, shim, pid, start_time):
            return None
        undo.pop_all()
    return process


def _is_it(
    machine: Machine, record: ContainerRecord, shim: Shim, pid: int, start_time: int
) -> bool:
    """Whether the pid, held by a descriptor now, belongs to the recorded process.

    A process that /proc hides, or hid when the start time should have been read, only has to be the
    shim's child.
    """
    now = look_at(pid)
    if now is None or start_time == HIDDEN:
        return is_shims_child(shim, pid)
    return now.start_time == start_time and _descends(machine, record, shim, pid)


def is_shims_child(shim: Shim, pid: int) -> bool:
    """Whether a process, held by a descriptor, is an unreaped child of the shim."""
    return pid != os.getpid() and shim.pid is not None and is_child(pid, shim.pid)


def _descends(machine: Machine, record: ContainerRecord, shim: Shim, pid: int) -> bool:
    """Whether the process is the container's, beyond pid, start time and boot.

    The files may hold the pid and start time of a foreign process, or of our own. So the process
    must be the shim's child while the shim lives, and be in the container's cgroup, if there is
    one. With neither shim nor cgroup, pid, start time and boot are enough.
    """
    if pid == os.getpid():
        return False
    alive = shim.alive()
    now = look_at(pid)
    if alive and (now is None or shim.pid is None or now.parent_pid != shim.pid):
        return False
    if alive and now is not None and now.zombie:
        return True  # a zombie is in no cgroup, and a signal can't harm it
    if record.cgroup is None or (alive and not machine.hierarchies.exists(record.cgroup)):
        return True
    return machine.hierarchies.holds(record.cgroup, pid)
