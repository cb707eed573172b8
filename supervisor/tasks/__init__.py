"""Trio tasks: processes, threads, deadlines and Ctrl-C."""

from ._forks import (
    Opener,
    forked,
    note_process,
    refuse_forked,
)
from ._inotify import (
    DirectoryWatch,
)
from ._interrupts import (
    opening,
    protected,
    undoing,
)
from ._nursery import (
    background_nursery,
    lasting_nursery,
)
from ._threads import in_thread, stop_waiting
from ._within import (
    begin_watch,
    expiring,
    granted,
    nap,
    shielded,
    within,
)

__all__ = [
    "DirectoryWatch",
    "Opener",
    "background_nursery",
    "begin_watch",
    "expiring",
    "forked",
    "granted",
    "in_thread",
    "lasting_nursery",
    "nap",
    "note_process",
    "opening",
    "protected",
    "refuse_forked",
    "shielded",
    "stop_waiting",
    "undoing",
    "within",
]
