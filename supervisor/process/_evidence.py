"""What the disk and the kernel say of a process that another supervisor launched.

`classify` is pure: what was found, in; what has to be done, out. `gather` finds it.
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
    """The boot and the cgroups that evidence is compared with: a supervisor's, or a look's own."""

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

    SETTLED = "its result is final"
    RUNNING = "its shim watches it"
    UNFINISHED = "nobody finished its creation"
    ORPHAN = "it is alive and its shim is dead"
    ENDED = "it has ended, recorded or not"


@attrs.frozen(kw_only=True)
class Evidence:
    """What was found.

    Attributes:
        settled: there is a ``result.json``.
        watched: a shim holds ``exit`` open.
        reported: the shim came as far as to write ``starttime``.
        alive: the very process is alive: pid, start time, boot and descent match.
    """

    settled: bool
    watched: bool
    reported: bool
    alive: bool


def classify(evidence: Evidence) -> Finding:
    """Return what has to be made of it."""
    if evidence.settled:
        return Finding.SETTLED
    if not evidence.reported:
        return Finding.UNFINISHED
    if evidence.watched:
        return Finding.RUNNING
    return Finding.ORPHAN if evidence.alive else Finding.ENDED


@attrs.define(kw_only=True)
class Found:
    """A process directory, looked at; it owns the descriptors until they are handed on.

    Attributes:
        finding: what has to be made of it.
        status: the settled status, or None.
        oom_kills: the out-of-memory kills that were counted by then.
        exit: its ``exit`` fifo, or None if there is none.
        shim: its shim, running or gone.
        process: the process itself, if it is certain and alive.
        lost: the status, if it has ended and its shim recorded nothing.
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
    """Return what a process is: of a pooled container's init, what a taker has made of it.

    Raises:
        FileNotFoundError: it was never made.
        StateCorrupt: that can't be understood.
    """
    record = load(ProcessRecord, layout.record)
    with contextlib.suppress(FileNotFoundError):
        record = load(ProcessRecord, layout.program)
    return record


def gather(machine: Machine, record: ContainerRecord, layout: ProcessLayout) -> Found:
    """Look at a process directory.

    ``exit`` is looked at first: a shim records the end before it closes the fifo, so once it
    is closed the record is final. Files that can't be understood count as missing: they are
    only ever believed when all of them agree.

    Raises:
        StateCorrupt: ``result.json`` can't be understood, or what is called ``exit`` is no fifo.
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

    If it is certain which one it is; else by its shim, whoever that is, which hears ``control``.

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
    with contextlib.suppress(OSError):  # nobody may hear it
        send_line(layout.control, signal_line(signal.SIGKILL))


def lost(*, same_boot: bool) -> ExitStatus:
    """Return the exit status of a process that is gone, and whose shim recorded none."""
    if not same_boot:
        return unknown("the machine was restarted, and no exit was recorded before")
    return unknown("its shim and its process are gone, and no exit was recorded")


def find_process(
    machine: Machine, record: ContainerRecord, layout: ProcessLayout, shim: Shim
) -> PidFd | None:
    """Return a process, held by a descriptor, if everything agrees that it is this one."""
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
    """Whether the process that is held by a descriptor now is the one that was meant.

    One that is hidden, or was when its start time should have been read, is, as long as it is its
    shim's child.
    """
    now = look_at(pid)
    if now is None or start_time == HIDDEN:
        return is_shims_child(shim, pid)
    return now.start_time == start_time and _descends(machine, record, shim, pid)


def is_shims_child(shim: Shim, pid: int) -> bool:
    """Whether a process that is held by a descriptor is a child that its shim hasn't reaped."""
    return pid != os.getpid() and shim.pid is not None and is_child(pid, shim.pid)


def _descends(machine: Machine, record: ContainerRecord, shim: Shim, pid: int) -> bool:
    """Whether it is ours, beyond pid, start time and boot.

    Somebody may have written another process's pid and start time into the files, or our own.
    While its shim lives, it is that one's child; and it is in its container's cgroup, if that
    has one. Where neither is there, the others must do.
    """
    if pid == os.getpid():
        return False
    alive = shim.alive()
    now = look_at(pid)
    if alive and (now is None or shim.pid is None or now.parent_pid != shim.pid):
        return False
    if alive and now is not None and now.zombie:
        return True  # it is in no cgroup any more, and nothing can happen to it
    if record.cgroup is None or (alive and not machine.hierarchies.exists(record.cgroup)):
        return True
    return machine.hierarchies.holds(record.cgroup, pid)
