"""Trio tasks: processes, threads, deadlines, Ctrl-C, and the observers of containers."""

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
from ._observer import (
    HISTORY_LENGTH,
    Change,
    ContainerReport,
    Witness,
    hear,
    name_suffix,
    place,
    waiting,
    witness,
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
    "HISTORY_LENGTH",
    "Change",
    "ContainerReport",
    "DirectoryWatch",
    "Opener",
    "Witness",
    "background_nursery",
    "begin_watch",
    "expiring",
    "forked",
    "granted",
    "hear",
    "in_thread",
    "lasting_nursery",
    "name_suffix",
    "nap",
    "note_process",
    "opening",
    "place",
    "protected",
    "refuse_forked",
    "shielded",
    "stop_waiting",
    "undoing",
    "waiting",
    "within",
    "witness",
]
